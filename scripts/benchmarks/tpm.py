"""A TPM quote verified, with the logs that it bears out: beside the bare check of its signature.

The floor is one P-256 verification by `cryptography` over the same bytes, its key parsed and its signature encoded.
A quote is verified as a session does it, from its bytes: envelope, signature, structure, qualifying data, selection,
digest of the values.

- *warm*: as in every window but the first: the measurement log of 64 events was replayed before, none came; its
  register is compared with the quoted one.
- *cold*: the 64 events too are replayed: numbers, chained head, register, and which models they load.
- *cold, from bytes*: the 64 records are parsed before that, and the digests of each recomputed from its content.

Beside these: what an enrolment costs once (the AK's endorsement of each kind, firmware's log, IMA's list of 10,000
entries), each by itself; floors are the bare signature checks in it.

No peer is measured: other verifiers of quotes are programs of their own, or need a TPM's library.

`--quick` repeats too little for the figures to mean anything: it shows that the benchmark runs.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from _figures import Figure, main
from _timing import in_turns
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from fakes.boot_logs import Boot
from fakes.enrolled_tpm import AT, enrol
from fakes.forged_snp import ForgedSnp
from fakes.soft_tpm import SoftTpm
from weighbridge.proto import measurement_log
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.tpm import public as tpm_public
from weighbridge.proto.tpm import signature as signatures
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.verifier.boot.facts import boot_facts
from weighbridge.verifier.boot.runtime import RuntimeLog
from weighbridge.verifier.tpm.ak import AttestationKey
from weighbridge.verifier.tpm.provenance import verify_endorsement
from weighbridge.verifier.tpm.quote import verify_quote
from weighbridge.verifier.weights import LogState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from weighbridge.proto.measurement_log import Event

_RECORDS: Final = 64
_FILES: Final = 10_000
_LOG_PCR: Final = 15
_TITLES: Final = {
    "bare signature check": "bare",
    "quote, log replayed before": "warm",
    "quote, and 64 records replayed": "cold",
    "quote, and 64 records read and replayed": "bytes",
}
_QUALIFYING: Final = b"q" * 32
_UNIT: Final = "µs"


@dataclass(frozen=True, slots=True)
class _Effort:
    """How often each is repeated."""

    quotes: int
    enrolments: int


FULL: Final = _Effort(quotes=2_000, enrolments=60)
QUICK: Final = _Effort(quotes=2, enrolments=1)


def figures(effort: _Effort) -> Iterator[Figure]:
    """All figures."""
    yield Figure("tpms: processors", os.cpu_count() or 0, "cores")
    yield Figure("tpms: load before", os.getloadavg()[0], "processes")
    yield from of_quotes(effort.quotes)
    yield from of_enrolments(effort.enrolments)
    yield Figure("tpms: load after", os.getloadavg()[0], "processes")


def of_quotes(rounds: int) -> Iterator[Figure]:
    """A quote verified, warm and cold."""
    device = SoftTpm()
    enrolled = enrol(device)
    start = device.pcrs[HashAlgorithm.SHA256][_LOG_PCR]
    records = _log(device)
    selection = PcrSelection.of(HashAlgorithm.SHA256, [*range(8), _LOG_PCR])
    quote = device.quote(selection, _QUALIFYING)
    data, log = quote.encode(), measurement_log.encode_records(records)
    register = device.pcrs[HashAlgorithm.SHA256][_LOG_PCR]
    empty = LogState.empty(start)
    before = empty.extended(records, bank=HashAlgorithm.SHA256, pcr=_LOG_PCR)

    def verified() -> bytes:
        evidence = QuoteEvidence.parse(data)
        result = verify_quote(evidence, enrolled.ak, qualifying_data=_QUALIFYING, selection=selection)
        return result.pcrs[_LOG_PCR]

    def warm() -> None:
        _require(before.register == verified() == register)

    def cold(events: Callable[[], Sequence[measurement_log.Record]]) -> None:
        value = verified()
        state = empty.extended(events(), bank=HashAlgorithm.SHA256, pcr=_LOG_PCR)
        _require(state.register == value == register)

    costs = in_turns(
        {
            "bare": _bare(quote, device),
            "warm": warm,
            "cold": partial(cold, lambda: records),
            "bytes": partial(cold, lambda: measurement_log.parse_records(log)),
        },
        rounds=rounds,
    )
    bare = costs["bare"]
    for title, name in _TITLES.items():
        cost = costs[name]
        yield Figure(f"TPM: {title}", cost.wall, _UNIT, floor=None if cost is bare else bare.wall)
        yield Figure(f"TPM: {title}, CPU", cost.cpu, _UNIT, floor=None if cost is bare else bare.cpu)
    yield Figure("quote_warm_vs_signature", costs["warm"].wall, _UNIT, floor=bare.wall)
    yield Figure("quote_cold_vs_signature", costs["cold"].wall, _UNIT, floor=bare.wall)
    yield Figure("quote_cold_from_bytes_vs_signature", costs["bytes"].wall, _UNIT, floor=bare.wall)


def of_enrolments(rounds: int) -> Iterator[Figure]:
    """What is verified once for a session."""
    boot = Boot()
    boot.uki()
    boot.kernel({f"/usr/lib/file-{number}": str(number).encode() for number in range(_FILES)})
    logs, quoted = boot.logs(), boot.quoted()
    listed = logs.runtime or b""
    empty = RuntimeLog.empty()
    read = empty.extended(listed, quoted=quoted[10], bank=HashAlgorithm.SHA256)
    rsa_tpm, ecc_tpm = SoftTpm(ak="RSA-2048"), SoftTpm()
    snp = ForgedSnp.create("Genoa")
    work: dict[str, Callable[[], object]] = {
        "EK certificate and chain": partial(
            verify_endorsement,
            ecc_tpm.endorsement(),
            _key(ecc_tpm),
            collateral=Collateral(),
            anchors=ecc_tpm.authority.anchors(),
            at=AT,
        ),
        "SEV-SNP report, chain and revocation list": partial(
            verify_endorsement,
            snp.endorsement(rsa_tpm.ak_key.public_key()),  # type: ignore[arg-type]  # an RSA key: asked for above
            _key(rsa_tpm),
            collateral=snp.collateral(),
            anchors=snp.anchors(),
            at=AT,
        ),
        "firmware's and systemd's logs": partial(boot_facts, logs, quoted, HashAlgorithm.SHA256),
        f"IMA's list, {_FILES} entries": partial(empty.extended, listed, quoted=quoted[10], bank=HashAlgorithm.SHA256),
        "IMA's list, nothing new": partial(read.extended, b"", quoted=quoted[10], bank=HashAlgorithm.SHA256),
    }
    for name, cost in in_turns(work, rounds=rounds, warm_up=1).items():
        yield Figure(f"TPM: {name}", cost.wall, _UNIT)
        yield Figure(f"TPM: {name}, CPU", cost.cpu, _UNIT)


def _log(device: SoftTpm) -> list[measurement_log.Record]:
    """A log of 64 records, in the register."""
    records: list[measurement_log.Record] = []
    for number in range(_RECORDS):
        manifest = number.to_bytes(32)
        event: Event = measurement_log.ModelLoad(manifest, f"model-{number}")
        record = measurement_log.make_record(event, recnum=number, pcr=_LOG_PCR, algs=device.banks)
        device.extend(_LOG_PCR, dict(record.digests))
        records.append(record)
    return records


def _bare(quote: QuoteEvidence, device: SoftTpm) -> Callable[[], None]:
    """The signature's check and nothing else."""
    key, value = device.ak_key.public_key(), signatures.parse(quote.signature).value
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(value, signatures.EcdsaSignature):
        raise TypeError("the benchmark is of P-256")
    encoded = encode_dss_signature(int.from_bytes(value.r), int.from_bytes(value.s))
    return partial(key.verify, encoded, quote.attest, ec.ECDSA(hashes.SHA256()))


def _key(tpm: SoftTpm) -> AttestationKey:
    return AttestationKey(tpm_public.parse(tpm.attestation_key()))


def _require(holds: bool) -> None:  # noqa: FBT001 - what is said to hold
    if not holds:
        raise RuntimeError("the benchmark's own evidence does not verify")


def _command(arguments: list[str]) -> int:
    effort = QUICK if "--quick" in arguments else FULL
    return main(lambda: figures(effort), [argument for argument in arguments if argument != "--quick"])


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
