"""What sealing costs a host whose TPM is swtpm, an emulator. How long a hardware TPM takes is not measured here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from _figures import Figure
from _timing import in_turns
from _windows import Line

from weighbridge.attester.sealing import Carried, Sealer
from weighbridge.attester.spool_files import DiskStorage
from weighbridge.attester.tpm.device import Tpm
from weighbridge.attester.tpm.emulator import Swtpm, manufacture
from weighbridge.proto.digest import sha256
from weighbridge.proto.tpm.constants import HashAlgorithm, digest_size
from weighbridge.proto.tpm.pcr import PcrSelection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["sealing"]

_UNIT: Final = "µs"
_PCR: Final = 15
# Costs the same, and leaves the quoted registers as they are.
_OTHER_PCR: Final = 13


def sealing(directory: Path, *, rounds: int) -> Iterator[Figure]:
    """The TPM's commands, and one window without GPU reports from header to evidence; CPU time is swtpm's as well."""
    line = Line.open(directory, gpus=1)
    try:
        with Swtpm(manufacture(directory / "made")) as emulator, Tpm.open(emulator.tcti) as tpm:
            costs = in_turns(_commands(line, tpm, directory / "header"), rounds=rounds)
    finally:
        line.close()
    for name, cost in costs.items():
        yield Figure(f"sealing: {name}", cost.wall, _UNIT)
        yield Figure(f"sealing: {name}, CPU", cost.cpu, _UNIT)


def _commands(line: Line, tpm: Tpm, header: Path) -> dict[str, Callable[[], object]]:
    terms, log = line.world.host.terms, line.world.host.log
    if terms is None:
        raise RuntimeError("no session")
    banks = {bank: digest_size(bank) for bank in tpm.active_banks()}
    bank = HashAlgorithm(terms.terms.bank)
    quoted, boot = (PcrSelection.of(bank, indices) for indices in (terms.terms.pcrs, terms.terms.boot_pcrs))
    qualifying_data = sha256(b"what is signed")
    tpm.create_telemetry_key(unique=qualifying_data, boot=boot)
    # The session was opened with another TPM: this one's register gets what the log says of it.
    for record in log.entries:
        tpm.extend(_PCR, {alg: value for alg, value in record.digests if alg in banks})
    # Window 1: the terms demand reports in every other window, from 0 on.
    observed = replace(line.observe(), seq=1)
    carried = Carried(
        records=len(log.entries), manifests=frozenset(log.known), reset_count=tpm.read_clock().reset_count
    )
    sealer = Sealer(terms, tpm=tpm, gpus=None, log=log, carried=carried, declared=())
    disk = DiskStorage()
    return {
        "quote by the TPM, each window": lambda: tpm.quote(quoted, qualifying_data),
        "signature by the TPM, each window": lambda: tpm.sign(qualifying_data),
        "clock of the TPM, each window": tpm.read_clock,
        "a window without GPU reports": lambda: sealer.seal(observed, begin=lambda data: disk.write(header, data)),
        "register extended, each load": lambda: tpm.extend(
            _OTHER_PCR, {bank: b"m" * size for bank, size in banks.items()}
        ),
        "telemetry key made, once": lambda: tpm.create_telemetry_key(unique=qualifying_data, boot=boot),
        "telemetry key certified, once": lambda: tpm.certify_telemetry_key(qualifying_data),
    }
