"""This project's driver: reads cases, one a line, judges each by the product's own code, answers one line each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from pydantic import ValidationError

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.conformance.replaying import Engines, Replay
from weighbridge.verifier.conformance.steps import ANSWER, Answered, Case, said

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["drive"]

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - only the base of a private directory


def drive(lines: Iterable[bytes], out: BinaryIO) -> None:
    """Answer every case in ``lines`` on ``out``, until they end.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``: a line is no case.
        EnvironmentFault: this machine cannot judge.
    """
    engines = Engines()
    try:
        for line in lines:
            case = _case(line)
            base = _MEMORY if _MEMORY.is_dir() else None
            with tempfile.TemporaryDirectory(prefix="weighbridge-", dir=base) as directory:
                with Replay(Path(directory), engines) as replay:
                    results = replay.run(case)
                answered = Answered.model_validate({"schema": ANSWER, "id": case.id, "said": tuple(map(said, results))})
            _ = out.write(answered.model_dump_json(by_alias=True).encode() + b"\n")
            out.flush()
    finally:
        engines.close()


def _case(line: bytes) -> Case:
    try:
        return Case.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "case"
        raise MalformedEvidence(Code.FIELD_RANGE, first["msg"], where=place) from error
