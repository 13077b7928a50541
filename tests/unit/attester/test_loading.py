"""The loader guard: a framework gets what was measured, or nothing, and the log says so."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from safetensors.numpy import load_file, save_file

from fakes.attester_socket import Attester
from fakes.models import flip_bit, write_model
from fakes.pcrs import FakePcrs, tpm_failure
from weighbridge.attester import guard as guard_module
from weighbridge.attester.loading import GuardedFile, GuardError, guarded_bytes, guarded_safetensors, install_guard
from weighbridge.attester.weights import MeasurementLog, measure
from weighbridge.attester.workload.client import LoadedModel, WorkloadClient, WorkloadError
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.measurement_log import ModelHanded, guarded

WEIGHTS = "model.safetensors"
FIRST = "layer.0.weight"


@pytest.fixture
def pcrs() -> FakePcrs:
    return FakePcrs()


@pytest.fixture
def attester(tmp_path: Path, pcrs: FakePcrs) -> Iterator[Attester]:
    log = MeasurementLog.open(tmp_path / "state", pcrs, pcr=15, boot="1.0")
    with Attester(tmp_path / "w", log) as found:
        yield found
    log.close()


@pytest.fixture
def client(attester: Attester) -> Iterator[WorkloadClient]:
    with WorkloadClient.connect(str(attester.path)) as found:
        yield found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def handed(attester: Attester) -> list[ModelHanded]:
    return [record.event for record in attester.log.records() if isinstance(record.event, ModelHanded)]


def offset_of(path: Path, tensor: str) -> int:
    (file,) = (entry for entry in measure(path.parent).files if entry.path == path.name)
    return next(part.offset for part in file.tensors if part.name == tensor)


def test_tensors_are_those_that_the_library_reads(attester: Attester, client: WorkloadClient, model: Path) -> None:
    load = client.load(model, guarded=True)
    found = guarded_safetensors(model / WEIGHTS, client, load)
    expected = load_file(model / WEIGHTS)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert np.array_equal(found[name], tensor)
        assert found[name].flags.writeable or not tensor.size
    manifest = measure(model)
    (entry,) = (file for file in manifest.files if file.path == WEIGHTS)
    assert handed(attester) == [ModelHanded(load.recnum, WEIGHTS, entry.digest, 3, entry.size, "match")]
    (loaded,) = attester.log.loaded()
    assert guarded(loaded, manifest)


def test_file_interface_is_that_of_safe_open(client: WorkloadClient, model: Path) -> None:
    client.load(model)
    with GuardedFile(model / WEIGHTS, client) as ours, safetensors.safe_open(model / WEIGHTS, "np") as theirs:
        assert sorted(ours.keys()) == sorted(theirs.keys())
        assert ours.offset_keys() == theirs.offset_keys()
        assert ours.metadata() == theirs.metadata() == {"format": "pt"}
        for name in ours.keys():  # noqa: SIM118 - as users of safe_open write it
            assert np.array_equal(ours.get_tensor(name), theirs.get_tensor(name))
        part, other = ours.get_slice(FIRST), theirs.get_slice(FIRST)
        assert (part.get_shape(), part.get_dtype()) == (other.get_shape(), other.get_dtype()) == ([8, 4], "F32")
        assert np.array_equal(part[2:4, 1], other[2:4, 1])
        assert part[2:4].base is None
        with pytest.raises(KeyError, match=r"layer\.9"):
            ours.get_tensor("layer.9")


def one_by_one(path: Path, client: WorkloadClient, load: LoadedModel) -> None:
    with GuardedFile(path, client, load) as file:
        for name in ("empty", "layer.0.bias", FIRST):
            file.get_tensor(name)


@pytest.mark.parametrize("read", [guarded_safetensors, one_by_one])
def test_file_exchanged_after_measuring_is_refused_by_tensor(
    attester: Attester, client: WorkloadClient, model: Path, tmp_path: Path, read: Callable[..., object]
) -> None:
    """A53: measured right, then swapped; the framework gets nothing of it, and the log says which tensor."""
    load = client.load(model, guarded=True)
    evil = write_model(tmp_path / "evil") / WEIGHTS
    flip_bit(evil, offset_of(evil, FIRST) + 5)
    evil.replace(model / WEIGHTS)
    with pytest.raises(GuardError) as caught:
        read(model / WEIGHTS, client, load)
    assert (caught.value.code, caught.value.tensor, caught.value.file) == (Code.LOAD_MISMATCH, FIRST, model / WEIGHTS)
    assert FIRST in str(caught.value)
    refusals = [event for event in handed(attester) if event.outcome != "match"]
    assert refusals == [ModelHanded(load.recnum, WEIGHTS, None, 0, 0, "mismatch", f"tensor {FIRST}")]
    # The session begins all the same, for the verifier to see.
    (manifest,) = attester.manifests
    (loaded,) = attester.log.loaded()
    assert not guarded(loaded, manifest)


def test_header_is_compared_before_it_is_parsed(attester: Attester, client: WorkloadClient, model: Path) -> None:
    """Names and shapes are the header's: the bytes of two tensors would fit under each other's names."""
    client.load(model)
    data = (model / WEIGHTS).read_bytes()
    swapped = data.replace(b"layer.0.weight", b"layer.0.waight")
    for content in (swapped, b"\xff" * 8 + data[8:]):
        (model / WEIGHTS).write_bytes(content)
        with pytest.raises(GuardError) as caught:
            guarded_safetensors(model / WEIGHTS, client)
        assert (caught.value.code, caught.value.tensor) == (Code.LOAD_MISMATCH, None)
        assert "header" in str(caught.value)
    # The log takes one record of each kind for a file, however often a server tries.
    assert [(event.outcome, event.detail) for event in handed(attester)] == [("mismatch", "header")]


@pytest.mark.parametrize("change", ["longer", "shorter", "gone"])
def test_file_of_another_size_is_refused(attester: Attester, client: WorkloadClient, model: Path, change: str) -> None:
    load = client.load(model)
    data = (model / WEIGHTS).read_bytes()
    if change == "gone":
        (model / WEIGHTS).unlink()
    else:
        (model / WEIGHTS).write_bytes(data + b"\0" if change == "longer" else data[:-1])
    with pytest.raises(GuardError) as caught:
        guarded_safetensors(model / WEIGHTS, client, load)
    assert caught.value.code == Code.WEIGHTS_CHANGED
    (event,) = handed(attester)
    assert event.outcome == "changed"
    assert ("No such file" if change == "gone" else "bytes instead of") in event.detail


def test_file_cut_while_it_is_read_is_refused(attester: Attester, client: WorkloadClient, model: Path) -> None:
    client.load(model)
    with GuardedFile(model / WEIGHTS, client) as file:
        (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:200])
        with pytest.raises(GuardError) as caught:
            file.get_tensors()
    assert caught.value.code == Code.WEIGHTS_CHANGED
    assert [event.outcome for event in handed(attester)] == ["changed", "match"]
    assert not guarded(attester.log.loaded()[0], attester.manifests[0])


@pytest.mark.parametrize("call", ["open", "preadv"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_file_that_cannot_be_read_is_no_changed_file(
    attester: Attester, client: WorkloadClient, model: Path, call: str, number: int
) -> None:
    """A fault of this machine is not for the log: what is in there ends the session, and sticks to an innocent host."""
    client.load(model)
    with (
        mock.patch.object(os, call, side_effect=OSError(number, os.strerror(number))),
        pytest.raises(EnvironmentFault) as caught,
    ):
        guarded_safetensors(model / WEIGHTS, client)
    assert caught.value.code is Code.WEIGHTS_UNREADABLE
    assert not handed(attester)
    # Once it can be read, it is loaded.
    assert guarded_safetensors(model / WEIGHTS, client)
    assert [event.outcome for event in handed(attester)] == ["match"]


def test_path_that_leads_in_a_circle_ends_no_connection(client: WorkloadClient, model: Path) -> None:
    loop = model.parent / "loop"
    loop.symlink_to("loop")
    client.load(model)
    for directory in (loop, loop / "model"):
        with pytest.raises(WorkloadError) as refused:
            client.load(directory)
        assert refused.value.code == Code.WEIGHTS_UNREADABLE
    with pytest.raises(GuardError) as unguarded:
        guarded_safetensors(loop / WEIGHTS, client)
    assert unguarded.value.code is Code.LOAD_UNGUARDED
    assert guarded_safetensors(model / WEIGHTS, client)


def test_tensors_of_several_shards_are_compared_as_they_were_measured(
    attester: Attester, client: WorkloadClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "SHARD_SIZE", 2**16)
    monkeypatch.setattr("weighbridge.proto.manifest.SHARD_SIZE", 2**16)
    monkeypatch.setattr("weighbridge.attester.weights.plan.SHARD_SIZE", 2**16)
    model = tmp_path / "large"
    model.mkdir()
    tensors: dict[str, np.ndarray[Any, np.dtype[Any]]] = {
        "a": np.arange(100_000, dtype=np.float32),
        "b": np.ones(3, dtype=np.uint8),
    }
    save_file(tensors, model / WEIGHTS)
    load = client.load(model, guarded=True)
    assert np.array_equal(guarded_safetensors(model / WEIGHTS, client, load)["a"], tensors["a"])
    flip_bit(model / WEIGHTS, offset_of(model / WEIGHTS, "a") + 300_000)
    with pytest.raises(GuardError) as caught:
        guarded_safetensors(model / WEIGHTS, client, load)
    assert caught.value.tensor == "a"
    assert [event.outcome for event in handed(attester)] == ["match", "mismatch"]


def test_part_of_a_file_does_not_count_and_several_workers_complete_it(
    attester: Attester, client: WorkloadClient, model: Path
) -> None:
    load = client.load(model, guarded=True)
    with GuardedFile(model / WEIGHTS, client, load) as file:
        file.get_tensor(FIRST)
    (part,) = handed(attester)
    assert (part.outcome, part.digest, part.tensors) == ("match", None, 1)
    manifest = measure(model)
    assert not guarded(attester.log.loaded()[0], manifest)
    assert attester.manifests == []
    with WorkloadClient.connect(str(attester.path)) as worker, GuardedFile(model / WEIGHTS, worker) as file:
        file.get_tensor("layer.0.bias")
        file.get_tensor("empty")
    assert handed(attester)[-1].digest is not None
    assert guarded(attester.log.loaded()[0], manifest)
    assert attester.manifests == [manifest]
    # Once more says nothing new.
    guarded_safetensors(model / WEIGHTS, client, load)
    assert len(handed(attester)) == 2


def test_loads_are_told_of_in_their_order(attester: Attester, client: WorkloadClient, model: Path) -> None:
    adapter = write_model(model.parent / "adapter", seed=2)
    base = client.load(model, guarded=True)
    client.load(adapter)
    assert attester.manifests == []
    guarded_safetensors(model / WEIGHTS, client, base)
    assert [manifest.name for manifest in attester.manifests] == ["model", "adapter"]


def test_newest_load_that_has_the_file_is_meant(attester: Attester, client: WorkloadClient, model: Path) -> None:
    old = client.load(model)
    flip_bit(model / WEIGHTS, offset_of(model / WEIGHTS, FIRST))
    new = client.load(model)
    guarded_safetensors(model / WEIGHTS, client)
    assert [event.load for event in handed(attester)] == [new.recnum]
    with pytest.raises(GuardError) as caught:
        guarded_safetensors(model / WEIGHTS, client, old)
    assert caught.value.code == Code.LOAD_MISMATCH
    client.unload(new.recnum)
    with pytest.raises(GuardError) as caught:
        guarded_safetensors(model / WEIGHTS, client, new)
    assert caught.value.code == Code.LOG_EVENT


def test_links_inside_the_directory_are_followed(client: WorkloadClient, model: Path, tmp_path: Path) -> None:
    (model / "blobs").mkdir()
    (model / WEIGHTS).rename(model / "blobs" / "0.safetensors")
    (model / WEIGHTS).symlink_to("blobs/0.safetensors")
    outside = tmp_path / "alias"
    outside.symlink_to(model)
    client.load(model)
    for path in (model / WEIGHTS, model / "blobs" / ".." / WEIGHTS, outside / WEIGHTS):
        assert FIRST in guarded_safetensors(path, client)


def test_plain_files_are_handed_over_as_bytes(attester: Attester, client: WorkloadClient, model: Path) -> None:
    """A54: the configuration and the tokenizer count too."""
    (model / "empty.txt").touch()
    load = client.load(model)
    for name in ("config.json", "extra/vocab.txt", "empty.txt"):
        assert guarded_bytes(model / name, client, load) == (model / name).read_bytes()
    assert [(event.path, event.tensors) for event in handed(attester)] == [
        ("config.json", 0),
        ("extra/vocab.txt", 0),
        ("empty.txt", 0),
    ]
    (model / "config.json").write_text('{"layers": 2}\n')
    with pytest.raises(GuardError) as caught:
        guarded_bytes(model / "config.json", client, load)
    assert (caught.value.code, caught.value.tensor) == (Code.LOAD_MISMATCH, None)
    for path in (model / WEIGHTS, model / "extra"):
        with pytest.raises(GuardError) as caught:
            guarded_bytes(path, client, load)
        assert caught.value.code == Code.LOAD_UNGUARDED


def test_a_model_without_weights_in_known_files_is_never_guarded(attester: Attester, client: WorkloadClient) -> None:
    directory = attester.path.parent / "pickled"
    directory.mkdir()
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04")
    client.load(directory, guarded=True)
    assert not guarded(attester.log.loaded()[0], measure(directory))


def test_frameworks_and_types_that_have_no_guard_are_refused(client: WorkloadClient, tmp_path: Path) -> None:
    model = write_model(tmp_path / "brain")
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    (model / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f")
    client.load(model)
    with pytest.raises(GuardError, match="numpy has no type BF16") as caught:
        guarded_safetensors(model / WEIGHTS, client)
    assert caught.value.code == Code.LOAD_UNGUARDED
    with pytest.raises(GuardError, match="flax"):
        guarded_safetensors(model / WEIGHTS, client, framework="flax")


class Torch(np.ndarray[Any, np.dtype[Any]]):
    """A tensor with the methods of torch's that a guard calls."""

    place: str = "cpu"

    def to(self, device: str) -> Torch:
        moved = np.array(self).view(Torch)
        moved.place = device
        return moved

    def clone(self) -> Torch:
        return self.copy()


def test_torch_gets_tensors_of_its_own_types_on_the_device(client: WorkloadClient, tmp_path: Path) -> None:
    """What torch's own functions return is not shown here: it is a module of the same names."""
    torch = types.ModuleType("torch")
    vars(torch).update(
        {name: getattr(np, name) for name in ("float32", "float16", "int8")},
        bfloat16=np.uint16,
        bool=np.bool_,
        frombuffer=lambda memory, dtype: np.frombuffer(memory, dtype).view(Torch),
        empty=lambda shape, dtype: np.empty(shape, dtype).view(Torch),
    )
    model = write_model(tmp_path / "brain")
    header = (
        b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BOOL","shape":[],"data_offsets":[4,5]}}'
    )
    (model / "more.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\0\0\1")
    client.load(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        found = guarded_safetensors(model / "more.safetensors", client, framework="pt", device="cuda:1")
        assert (found["a"].place, found["a"].tolist(), found["b"].tolist()) == ("cuda:1", [0x3F80, 0], True)
        with GuardedFile(model / WEIGHTS, client, framework="torch") as file:
            assert file.get_tensor("empty").shape == (0, 3)
            part = file.get_slice(FIRST)[1:3]
    assert (type(part), part.shape, part.place) == (Torch, (2, 4), "cpu")


def test_framework_that_is_not_installed_is_a_fault(client: WorkloadClient, model: Path) -> None:
    client.load(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        with pytest.raises(EnvironmentFault) as caught:
            guarded_safetensors(model / WEIGHTS, client, framework="pt")
    assert caught.value.code == Code.TOOL_MISSING


def test_installed_guard_stands_before_the_library_and_goes_again(
    attester: Attester, client: WorkloadClient, model: Path, tmp_path: Path
) -> None:
    stranger = write_model(tmp_path / "stranger") / WEIGHTS
    client.load(model)
    original = safetensors.safe_open
    with install_guard(client):
        assert FIRST in safetensors.numpy.load_file(model / WEIGHTS)
        with safetensors.safe_open(str(model / WEIGHTS), framework="np", device="cpu") as file:
            assert type(file) is GuardedFile
            assert np.array_equal(file.get_tensor(FIRST), load_file(model / WEIGHTS)[FIRST])
        with pytest.raises(GuardError) as caught:
            load_file(stranger)
        assert caught.value.code == Code.LOAD_UNGUARDED
    assert safetensors.safe_open is vars(safetensors.numpy)["safe_open"] is original
    assert FIRST in load_file(stranger)
    assert [event.outcome for event in handed(attester)] == ["match"]


def test_installed_guard_goes_when_loading_fails(client: WorkloadClient) -> None:
    original = safetensors.safe_open
    with pytest.raises(RuntimeError, match="server"), install_guard(client):
        raise RuntimeError("server")
    assert safetensors.safe_open is original


def test_nothing_is_handed_over_that_cannot_be_logged(
    attester: Attester, client: WorkloadClient, model: Path, pcrs: FakePcrs
) -> None:
    client.load(model)
    with GuardedFile(model / WEIGHTS, client) as file:
        pcrs.before = tpm_failure()
        with pytest.raises(WorkloadError) as caught:
            file.get_tensors()
        assert caught.value.code == Code.TPM_FAILED
        assert not handed(attester)
        assert not attester.server._handovers.whole(0)
        attester.log.close()
        with pytest.raises(WorkloadError) as caught:
            file.get_tensors()
    assert caught.value.code == Code.STATE_CORRUPT
    client.close()
    with pytest.raises(WorkloadError) as caught:
        guarded_safetensors(model / WEIGHTS, client)
    assert caught.value.code == "PEER_UNREACHABLE"


def test_loads_of_another_attester_are_not_known(client: WorkloadClient, model: Path) -> None:
    with pytest.raises(GuardError) as caught:
        guarded_safetensors(model / WEIGHTS, client, LoadedModel("00" * 32, 7))
    assert caught.value.code == Code.LOG_EVENT


def test_blake3_is_what_a_model_declared_with_it_is_compared_by(tmp_path: Path, pcrs: FakePcrs, model: Path) -> None:
    (model / "notes.txt").write_text("not for the manifest")
    declared = measure(model, name="m", algorithm="blake3", ignore=["notes.txt"])
    log = MeasurementLog.open(tmp_path / "other", pcrs, pcr=15, boot="1.0")
    with Attester(tmp_path / "b", log, declared=[declared]) as attester:
        with WorkloadClient.connect(str(attester.path)) as client:
            load = client.load(model, name="m", guarded=True)
            assert load.digest == declared.digest.hex()
            assert FIRST in guarded_safetensors(model / WEIGHTS, client, load)
            flip_bit(model / WEIGHTS, offset_of(model / WEIGHTS, FIRST))
            with pytest.raises(GuardError):
                guarded_safetensors(model / WEIGHTS, client, load)
        assert guarded(attester.log.loaded()[0], declared) is False
    log.close()


def test_guard_needs_neither_the_tpm_library_nor_a_framework() -> None:
    code = (
        "import sys\nfor name in ('numpy', 'torch', 'safetensors', 'tpm2_pytss', 'grpc'): sys.modules[name] = None\n"
        "import weighbridge.attester.loading\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_example_of_the_document_runs(
    root: Path, attester: Attester, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (root / "docs" / "loading.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    monkeypatch.setenv("WEIGHBRIDGE_WORKLOAD", str(attester.path))
    names: dict[str, Any] = {"directory": model}
    exec(compile(example, "docs/loading.md", "exec"), names)  # noqa: S102 - our own document
    assert set(names["tensors"]) == set(names["again"]) == set(load_file(model / WEIGHTS))
    assert names["config"] == (model / "config.json").read_bytes()
    (loaded,) = attester.log.loaded()
    assert guarded(loaded, attester.manifests[0])
