"""Acts about weights: what is loaded is not what was declared."""

from __future__ import annotations

import json
import shutil
import struct
from typing import TYPE_CHECKING

from rogue import ForgetfulLog, open_rogue
from stage import ADAPTER, SPOT_EVERY, TEXTS, Attester, Stage, make_adapter
from telling import (
    PATIENCE_S,
    ActFailed,
    Result,
    Waiting,
    expect,
    last_error,
    progress,
    say,
    say_error,
    session_of,
    why,
    why_code,
)

from weighbridge.attester.tpm.device import Tpm
from weighbridge.proto.errors import Code, ExitCode, WeighbridgeError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["adapter_swapped", "another_model", "one_bit", "weights_gone"]


async def one_bit(stage: Stage) -> Result:
    """One bit of one tensor is changed after the weights were declared."""
    host = stage.hosts["one-bit"]
    directory = host.directory / "model"
    shutil.copytree(stage.model, directory)
    weights = directory / "model.safetensors"
    name, offset = first_value(weights, "encoder.layer.0.attention.self.query.weight")
    with weights.open("rb") as file:
        file.seek(offset)
        byte = file.read(1)[0]
    overwrite(weights, offset, bytes([byte ^ 1]))
    say(f"    flipped one bit of {name}")
    attester = await Attester.start(
        [*stage.options(host), "--windows", "2", *stage.server("--model", directory)], progress
    )
    status = await attester.wait(PATIENCE_S)
    refusal = " ".join(attester.errors)
    say_error(last_error(attester))
    expect(status == ExitCode.DENIED, f"exit {status}, not {ExitCode.DENIED}: {refusal}")
    for needed in (Code.WEIGHTS_MISMATCH.value, "model.safetensors", name):
        expect(needed in refusal, f"the refusal does not name {needed}: {refusal}")
    await why_code(Code.WEIGHTS_MISMATCH, "tensor by tensor, what was declared")
    return Result("refused", f"{Code.WEIGHTS_MISMATCH}: model.safetensors, …{name[-36:]}")


def first_value(path: Path, suffix: str) -> tuple[str, int]:
    """The name of a tensor, and where its first byte is in the file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    name = next(key for key in sorted(header) if key.endswith(suffix))
    return name, 8 + length + header[name]["data_offsets"][0]


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Write ``content`` into a file, at ``offset``."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


async def another_model(stage: Stage) -> Result:
    """The declared weights run, then a variant of them is loaded as well; the attester is started again."""
    host = stage.hosts["another-model"]
    other = host.directory / "fine-tune"
    shutil.copytree(stage.model, other)
    name, offset = first_value(other / "model.safetensors", "pooler.dense.bias")
    overwrite(other / "model.safetensors", offset, b"tune")
    attester = await Attester.start(
        [
            *stage.options(host),
            "--windows", "6",
            *stage.server("--self-drive", TEXTS, "--rate", "6", "--also", other, "--in-window", "2"),
        ],
        progress,
    )  # fmt: skip
    status = await attester.wait(PATIENCE_S)
    expect(status == ExitCode.DENIED, f"exit {status}: {attester.errors[-3:]}")
    expect_denied(attester, Code.WEIGHTS_MISMATCH, "model.safetensors", name)
    expect_denied(attester, Code.MODEL_UNDECLARED)
    await why(
        stage, session_of(attester), "'fine-tune' was loaded", "every model that is loaded", "no policy was asked"
    )
    say("    the attester is started again, without a reset of the TPM")
    again = await Attester.start([*stage.options(host), "--windows", "2", *stage.server()], progress)
    status = await again.wait(PATIENCE_S)
    say_error(last_error(again))
    expect(status == ExitCode.DENIED, f"exit {status}: {again.errors[-3:]}")
    expect(Code.SUBJECT_FAILED.value in " ".join(again.errors), f"refused, but by {last_error(again)}")
    await why_code(Code.SUBJECT_FAILED, "neither the attestation key nor a GPU has failed before")
    say("    and once more, with a log that begins today")
    with Tpm.open(host.tpm.tcti) as tpm:
        try:
            await open_rogue(stage, host, tpm=tpm, log=ForgetfulLog(tpm))
        except WeighbridgeError as error:
            say_error(str(error))
            expect(error.code is Code.BASELINE_UNEXPLAINED, f"refused, but by {error}")
            await why_code(Code.BASELINE_UNEXPLAINED, "everything since boot")
        else:
            raise ActFailed("a log that begins today was accepted")
    return Result("refused", f"{Code.WEIGHTS_MISMATCH}: …, {name}; restart: {Code.SUBJECT_FAILED}, …")


async def adapter_swapped(stage: Stage) -> Result:
    """The session declares an adapter beside its model; in window 3 the server takes another one of that name."""
    host = stage.hosts["adapter"]
    declared, swapped = stage.out / ADAPTER, host.directory / "swapped"
    make_adapter(swapped, seed=2)
    attester = await Attester.start(
        [
            *stage.options(host),
            "--adapter", stage.adapter_file,
            "--windows", "8",
            *stage.server(
                "--self-drive", TEXTS, "--rate", "6",
                "--adapter", declared, "--swap-adapter", swapped, "--in-window", "3",
            ),
        ],
        progress,
    )  # fmt: skip
    status = await attester.wait(PATIENCE_S)
    expect(status == ExitCode.DENIED, f"exit {status}: {attester.errors[-3:]}")
    expect("affirmed" in {line.get("status") for line in attester.lines}, "no window with the adapter was affirmed")
    expect_denied(attester, Code.WEIGHTS_MISMATCH, "adapter_model.safetensors", "lora_A.weight")
    await why(stage, session_of(attester), "lora_A.weight", "tensor by tensor, what was declared")
    return Result("refused", f"{Code.WEIGHTS_MISMATCH}: adapter_model.safetensors, lora_A.weight")


async def weights_gone(stage: Stage) -> Result:
    """The weights on the disk are exchanged after they were measured and loaded; every digest is kept."""
    host = stage.hosts["weights-gone"]
    directory = host.directory / "model"
    shutil.copytree(stage.model, directory)
    weights = directory / "model.safetensors"
    affirmed = Waiting(lambda document: document.get("status") == "affirmed", SPOT_EVERY + 1)
    attester = await Attester.start(
        [*stage.options(host), *stage.server("--model", directory, "--self-drive", TEXTS, "--rate", "6")],
        affirmed.watch,
    )
    await affirmed.until(attester, "an answered spot check")
    size = weights.stat().st_size
    weights.unlink()
    with weights.open("wb") as file:
        file.truncate(size)
    say("    the weights on the disk are exchanged for zeros; in memory, log and register they stay")
    status = await attester.wait(PATIENCE_S)
    expect(status == ExitCode.DENIED, f"exit {status}: {attester.errors[-3:]}")
    expect_denied(attester, Code.SPOT_WRONG)
    await why(stage, session_of(attester), "is answered, from the model's bytes")
    return Result("refused", f"{Code.SPOT_WRONG}, after {SPOT_EVERY + 1} windows and more that were affirmed")


def expect_denied(attester: Attester, code: Code, *words: str) -> None:
    """Require that a window was denied with ``code`` in a sentence that has all of ``words``."""
    denials = [denial for line in attester.lines if line.get("verdict") for denial in line["verdict"]["denials"]]
    told = [f"{denial['code']}: {denial['message']}" for denial in denials]
    expect(any(one.startswith(f"{code}: ") and all(word in one for word in words) for one in told), f"told was {told}")
