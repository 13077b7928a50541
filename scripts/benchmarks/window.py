"""One window's verification step by step, beside the bare signature checks of the same window.

Each step is the product's own function over the window's own bytes. The floor is what nobody can save: two P-256
verifications (header, quote) and one P-384 for each GPU report, by `cryptography` directly, with keys and messages
prepared. Steps and floor are measured in turns, in one process and on one core (the policy engine in its worker).

No peer is measured: NVIDIA's verifier judges reports only, and `scripts/bench gpu` has it beside ours.

`--quick` repeats too little for the figures to mean anything: it shows that the benchmark runs.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _durability import durability
from _figures import Figure, main
from _sealing import sealing
from _timing import Cost, in_turns
from _windows import Case, Line
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from weighbridge.proto import binding, cose, measurement_log, telemetry
from weighbridge.proto.digest import sha256
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.tpm import signature as tpm_signature
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.proto.window import Evidence, Header, seal
from weighbridge.verifier import weights
from weighbridge.verifier.gpu.chain import verify_chain
from weighbridge.verifier.gpu.report import verify_report
from weighbridge.verifier.tpm.quote import verify_quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_GPUS: Final = (1, 8)
_UNIT: Final = "µs"
_WHOLE, _VERIFIED, _APPRAISED, _DECIDED = "verified and appraised", "verified", "appraised", "decided"
_FLOOR_HEADER, _FLOOR_QUOTE, _FLOOR_GPUS = "bare: header", "bare: quote", "bare: GPU reports"
# Named in the order of the procedure; what is left of the whole is the header's, chain's and clocks' comparisons.
_HEADER_SIGNATURE, _GPU_SIGNATURES, _QUOTE = (
    "2 header's signature",
    "9 GPU reports verified",
    "10 quote parsed and verified",
)


@dataclass(frozen=True, slots=True)
class _Effort:
    """How often things are repeated: per number of GPUs, for what writes to disk, and for what a TPM does."""

    rounds: dict[int, int]
    durable: int
    sealing: int


_FULL: Final = _Effort({1: 300, 8: 60}, durable=40, sealing=40)
_QUICK: Final = _Effort({1: 2, 8: 1}, durable=1, sealing=1)


def measure(effort: _Effort, directory: Path) -> Iterator[Figure]:
    """All figures; ``directory`` is empty, on the disk whose speed is to be measured."""
    yield Figure("machine: processors", os.cpu_count() or 0, "cores")
    yield Figure("machine: load before", os.getloadavg()[0], "processes")
    for gpus in _GPUS:
        line = Line.open(directory / f"{gpus}", gpus=gpus)
        try:
            cases = {report: line.case(report=report) for report in (True, False)}
            for report, case in cases.items():
                label = f"{gpus}gpu" if report else f"{gpus}gpu_no_report"
                yield from _verification(label, case, rounds=effort.rounds[gpus])
            yield from durability(
                f"{gpus}gpu recorded", line, cases[True], directory / f"{gpus}-parts", rounds=effort.durable
            )
        finally:
            line.close()
        yield from _telemetry(gpus, directory / f"{gpus}-telemetry", rounds=effort.rounds[gpus])
    yield from sealing(directory / "sealing", rounds=effort.sealing)
    yield Figure("machine: load after", os.getloadavg()[0], "processes")


def _verification(label: str, case: Case, *, rounds: int) -> Iterator[Figure]:
    bare, steps = _bare(case), _steps(case)
    verified = case.verify()
    document = case.asked(verified)
    wholes: dict[str, Callable[[], object]] = {
        _WHOLE: lambda: case.appraise(case.verify()),
        _VERIFIED: case.verify,
        _APPRAISED: lambda: case.appraise(verified),
        _DECIDED: lambda: case.world.prepared.decide(document),
    }
    costs = in_turns({**bare, **steps, **wholes}, rounds=rounds)
    floor = _sum(costs[name] for name in bare)
    yield Figure(f"{label}: evidence", len(case.raw), "bytes")
    yield Figure(f"{label}: bare signature checks", floor.wall, _UNIT)
    floors = {_HEADER_SIGNATURE: _FLOOR_HEADER, _QUOTE: _FLOOR_QUOTE, _GPU_SIGNATURES: _FLOOR_GPUS}
    for name in steps:
        bottom = floors.get(name)
        yield Figure(f"{label}: {name}", costs[name].wall, _UNIT, None if bottom is None else costs[bottom].wall)
    yield Figure(f"{label}: {_VERIFIED}", costs[_VERIFIED].wall, _UNIT, floor.wall)
    rest = costs[_VERIFIED].wall - _sum(costs[name] for name in steps).wall
    yield Figure(f"{label}: of it not in any step above", rest, _UNIT)
    yield Figure(f"{label}: {_APPRAISED}", costs[_APPRAISED].wall, _UNIT)
    yield Figure(f"{label}: of it the policy's decision", costs[_DECIDED].wall, _UNIT)
    yield Figure(f"window_vs_floor_{label}", costs[_WHOLE].wall, _UNIT, floor.wall)
    yield Figure(f"window_vs_floor_{label}_cpu", costs[_WHOLE].cpu, _UNIT, floor.cpu)
    for name, cost in in_turns(_first_time(case), rounds=rounds // 4 or 1).items():
        yield Figure(f"{label}: {name}", cost.wall, _UNIT)


def _telemetry(gpus: int, directory: Path, *, rounds: int) -> Iterator[Figure]:
    """What samples cost in a window that fills a unit of the baseline that they are compared with."""
    line = Line.open(directory, gpus=gpus)
    try:
        line.baseline()
        line.deliver(line.seal())
        case = line.case(report=True)
        verified, sent = case.verify(), Evidence.parse(case.raw).telemetry
        presented = case.presented(verified)
        said = case.compare(verified, presented).verdict
        if said != "in_baseline":
            raise RuntimeError(f"the samples are {said}")
        bare = _bare(case)
        steps: dict[str, Callable[[], object]] = {
            "hashed and parsed": lambda: (sha256(sent), telemetry.Telemetry.parse(sent)),
            "joined": lambda: case.presented(verified),
            "fingerprinted for the memory": lambda: case.traces(verified, presented),
            "checked, scored and appraised": lambda: case.compare(verified, presented),
        }
        costs = in_turns({**bare, **steps}, rounds=rounds)
    finally:
        line.close()
    for name in steps:
        yield Figure(f"{gpus}gpu telemetry: {name}", costs[name].wall, _UNIT)
    whole, floor = _sum(costs[name] for name in steps), _sum(costs[name] for name in bare)
    yield Figure(f"telemetry_ms_{gpus}gpu", whole.wall / 1000, "ms", floor.wall / 1000)


def _bare(case: Case) -> dict[str, Callable[[], object]]:
    """The signature checks of the window and nothing else."""
    evidence = Evidence.parse(case.raw)
    signed, quote = evidence.signed_header(), QuoteEvidence.parse(evidence.quote)
    message = cose.to_be_signed(signed.protected, signed.payload)
    ak = case.enrolled.ak.public.public_key()
    if not isinstance(ak, ec.EllipticCurvePublicKey):
        raise TypeError("the attestation key is not P-256")
    raw = tpm_signature.parse(quote.signature).raw_p256()
    p256, p384 = ec.ECDSA(hashes.SHA256()), ec.ECDSA(hashes.SHA384())
    bare = {
        _FLOOR_HEADER: _check(case.enrolled.telemetry_key.key, signed.signature, message, p256),
        _FLOOR_QUOTE: _check(ak, raw, quote.attest, p256),
    }
    if evidence.gpus is not None:
        reports = [
            _check(case.chain(item).key, sent.signature, sent.signed, p384)
            for item in gpu_evidence.parse(evidence.gpus)
            for sent in (spdm.parse(item.report),)
        ]
        bare[_FLOOR_GPUS] = lambda: [check() for check in reports]
    return bare


def _check(
    key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, algorithm: ec.ECDSA
) -> Callable[[], object]:
    half = len(signature) // 2
    der = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
    return lambda: key.verify(der, message, algorithm)


def _steps(case: Case) -> dict[str, Callable[[], object]]:
    """The procedure's steps that can be called by themselves, numbered as there."""
    evidence, enrolled = Evidence.parse(case.raw), case.enrolled
    signed, terms = evidence.signed_header(), enrolled.terms
    header, bank = signed.payload, HashAlgorithm(terms.bank)
    return {
        "1 evidence and COSE_Sign1 parsed": lambda: Evidence.parse(case.raw).signed_header(),
        _HEADER_SIGNATURE: lambda: cose.verify(signed, enrolled.telemetry_key.key),
        "3 header parsed and hashed": lambda: (Header.parse(header), binding.window_digest(header)),
        "7 telemetry hashed and parsed": lambda: (
            sha256(evidence.telemetry),
            telemetry.Telemetry.parse(evidence.telemetry),
        ),
        "8 measurement log parsed and replayed": lambda: case.position.log.extended(
            measurement_log.parse_records(evidence.log), bank=bank, pcr=terms.log_pcr
        ),
        **_gpu_steps(case, evidence.gpus, binding.gpu_nonce(binding.window_digest(header))),
        **_quote_steps(case, evidence, header),
        "13 manifests parsed": lambda: weights.open_manifests(evidence.manifests),
    }


def _gpu_steps(case: Case, sent: bytes | None, nonce: bytes) -> dict[str, Callable[[], object]]:
    if sent is None:
        return {}
    items = gpu_evidence.parse(sent)
    reports = [spdm.parse(item.report) for item in items]
    chains = [case.chain(item) for item in items]
    return {
        "9 GPU evidence and reports parsed": lambda: [spdm.parse(item.report) for item in gpu_evidence.parse(sent)],
        "9 GPU chains, seen before": lambda: [case.chain(item) for item in items],
        _GPU_SIGNATURES: lambda: [
            verify_report(report, chain, nonce=nonce) for report, chain in zip(reports, chains, strict=True)
        ],
    }


def _quote_steps(case: Case, evidence: Evidence, header: bytes) -> dict[str, Callable[[], object]]:
    terms = case.enrolled.terms
    gpus = case.verify().gpus

    def sealed() -> tuple[bytes, bytes]:
        rows = None if gpus is None else [report.binding_row for report in gpus]
        return seal(header, gpu_evidence.rows_binding(rows), None)

    _, qualifying_data = sealed()
    selection = PcrSelection.of(HashAlgorithm(terms.bank), terms.pcrs)
    return {
        "10 G_k and the quote's qualifying data": sealed,
        _QUOTE: lambda: verify_quote(
            QuoteEvidence.parse(evidence.quote), case.enrolled.ak, qualifying_data=qualifying_data, selection=selection
        ),
    }


def _first_time(case: Case) -> dict[str, Callable[[], object]]:
    """What only the first window of a session costs, or the first after a restart."""
    sent = Evidence.parse(case.raw).gpus
    if sent is None:
        return {}
    items, anchors = gpu_evidence.parse(sent), case.world.anchors
    return {
        "9 GPU chains, never seen before": lambda: [verify_chain(item.chain, anchors, at=case.at) for item in items]
    }


def _sum(costs: Iterable[Cost]) -> Cost:
    listed = list(costs)
    return Cost(sum(cost.wall for cost in listed), sum(cost.cpu for cost in listed))


def _command(arguments: list[str]) -> int:
    effort = _QUICK if "--quick" in arguments else _FULL
    directory = Path(tempfile.mkdtemp(prefix="weighbridge-bench-"))
    try:
        rest = [argument for argument in arguments if argument != "--quick"]
        return main(lambda: measure(effort, directory), rest)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
