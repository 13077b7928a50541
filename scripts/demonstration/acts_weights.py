"""Acts about weights: what is loaded is not what was declared."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from typing import TYPE_CHECKING

from rogue import ForgetfulLog, Rogue
from stage import TEXTS, Attester, Stage
from telling import PATIENCE_S, ActFailed, Result, denied_codes, expect, last_error, progress, say, say_error

from weighbridge.attester.tpm.device import Tpm
from weighbridge.proto.errors import Code, ExitCode, WeighbridgeError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["another_model", "one_bit"]


async def one_bit(stage: Stage) -> Result:
    """One bit of one tensor is changed after the weights were declared."""
    host = stage.hosts["one-bit"]
    directory = host.directory / "model"
    shutil.copytree(stage.model, directory)
    weights = directory / "model.safetensors"
    name, offset = first_value(weights, "encoder.layer.0.attention.self.query.weight")
    with weights.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
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
    return Result("refused", f"{Code.WEIGHTS_MISMATCH}: model.safetensors, …{name[-36:]}")


def first_value(path: Path, suffix: str) -> tuple[str, int]:
    """The name of a tensor, and where its first byte is in the file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    name = next(key for key in sorted(header) if key.endswith(suffix))
    return name, 8 + length + header[name]["data_offsets"][0]


async def another_model(stage: Stage) -> Result:
    """The declared weights are measured, then another model is loaded as well; the attester is started again."""
    host = stage.hosts["another-model"]
    other = host.directory / "other"
    other.mkdir()
    (other / "weights.bin").write_bytes(hashlib.sha256(b"another model").digest() * 64)
    attester = await Attester.start(
        [
            *stage.options(host),
            "--windows", "6",
            *stage.server("--self-drive", TEXTS, "--rate", "6", "--also", other, "--also-in-window", "2"),
        ],
        progress,
    )  # fmt: skip
    status = await attester.wait(PATIENCE_S)
    expect(status == ExitCode.DENIED, f"exit {status}: {attester.errors[-3:]}")
    codes = denied_codes(attester)
    expect(Code.MODEL_UNDECLARED.value in codes, f"refused, but by {codes}")
    say("    the attester is started again, without a reset of the TPM")
    again = await Attester.start([*stage.options(host), "--windows", "2", *stage.server()], progress)
    status = await again.wait(PATIENCE_S)
    say_error(last_error(again))
    expect(status == ExitCode.DENIED, f"exit {status}: {again.errors[-3:]}")
    expect(Code.SUBJECT_FAILED.value in " ".join(again.errors), f"refused, but by {last_error(again)}")
    say("    and once more, with a log that begins today")
    with Tpm.open(host.tpm.tcti) as tpm:
        try:
            await Rogue.open(stage, host, tpm=tpm, log=ForgetfulLog(tpm))
        except WeighbridgeError as error:
            say_error(str(error))
            expect(error.code is Code.BASELINE_UNEXPLAINED, f"refused, but by {error}")
        else:
            raise ActFailed("a log that begins today was accepted")
    return Result("refused", f"{Code.MODEL_UNDECLARED}; restart: {Code.SUBJECT_FAILED}, {Code.BASELINE_UNEXPLAINED}")
