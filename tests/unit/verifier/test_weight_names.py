"""A model that was loaded under another name than it was declared under: said so, and not as changed bytes."""

from __future__ import annotations

from support.models import plain
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
