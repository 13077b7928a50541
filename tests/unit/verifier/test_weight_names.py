"""A model that was loaded under another name than it was declared under: said so, and not as changed bytes."""

from __future__ import annotations

from support.models import plain, safetensors
from weighbridge.proto.errors import Code
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.measurement_log import Loaded
from weighbridge.verifier.weights import LogState, appraise


def test_another_name_is_told_as_a_name() -> None:
    declared, measured = (Manifest.build(name, [plain("a.bin", b"a")]) for name in ("minilm", "model"))
    model = Loaded(manifest=measured.digest, name=measured.name, recnum=0)
    found = appraise(
        LogState((), bytes(32), bytes(32), (model,), ()),
        declared=(declared.digest,),
        measured={measured.digest: measured},
        references={declared.digest: declared},
        window=None,
    )
    assert [denial.code for denial in found.denials] == [Code.WEIGHTS_MISMATCH, Code.MODEL_UNDECLARED]
    first = found.denials[0]
    assert (first.expected, first.got) == ("minilm", "model")
    assert "another name" in first.message
    assert first.hint is not None
    assert "bytes" not in first.message + first.hint


def test_a_swapped_adapter_is_compared_with_the_declared_one_that_it_resembles() -> None:
    """A54: the model and another adapter share file names with it, too; its own name decides."""

    def lora(name: str, weights: bytes) -> Manifest:
        return Manifest.build(name, [safetensors("adapter_model.safetensors", {"lora_A": weights, "lora_B": b"b"})])

    model = Manifest.build("base", [plain("config.json", b"{}")])
    sql, chat, swapped = lora("sql", b"1"), lora("chat", b"2"), lora("sql", b"3")
    loaded = tuple(Loaded(manifest=one.digest, name=one.name, recnum=at) for at, one in enumerate((model, swapped)))
    found = appraise(
        LogState((), bytes(32), bytes(32), loaded, ()),
        declared=(model.digest, chat.digest, sql.digest),
        measured={swapped.digest: swapped},
        references={one.digest: one for one in (model, sql, chat)},
        window=3,
    )
    assert [denial.code for denial in found.denials] == [Code.WEIGHTS_MISMATCH, Code.MODEL_UNDECLARED]
    assert found.denials[0].message == "tensor changed in adapter_model.safetensors, tensor lora_A"
    assert (found.denials[0].expected, found.denials[0].window) == (sql.files[0].tensors[0].digest.hex(), 3)
