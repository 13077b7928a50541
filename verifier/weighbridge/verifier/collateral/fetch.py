"""Fetches collateral into a store, for sites with a network. Nothing that verifies anything calls this.

What comes back is held against what was asked for, and where that can be told already, against its signature: a
stranger's OCSP response is not kept. Everything else is verified where it is used; a server, a mirror or a proxy that
lies can keep a site from judging, and no more than that.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import unquote

from weighbridge.proto import limits, strict
from weighbridge.proto.collateral import CollateralItem
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier.collateral.describe import FILE_MAX, describe, recognise
from weighbridge.verifier.collateral.wanted import held
from weighbridge.verifier.gpu import ocsp
from weighbridge.verifier.gpu.ocsp import Authority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from weighbridge.verifier.collateral.describe import Description
    from weighbridge.verifier.collateral.https import Answer, Fetcher
    from weighbridge.verifier.collateral.store import CollateralStore
    from weighbridge.verifier.collateral.wanted import Wanted

__all__ = ["Fetched", "Outcome", "fetch"]

Outcome = Literal["failed", "held", "left", "new", "same"]

# Intel signs the value, byte for byte as it stands in the answer.
_SIGNED: Final = re.compile(rb'\{"(?:tcbInfo|enclaveIdentity)":(\{.*\}),"signature":"([0-9a-f]{128})"\}', re.DOTALL)
# What is fresh enough not to be asked for again: three quarters of its life are left.
_LIFE_PARTS: Final = 4


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of one wish.

    ``held``: there is a fresh piece, nothing was asked. ``new``, ``same``: what came was not in the store, or was.
    ``left``: the limit was reached before. ``failed``: ``error`` says why.
    """

    wanted: Wanted
    outcome: Outcome
    pieces: tuple[Description, ...] = ()
    error: WeighbridgeError | None = None


def fetch(
    wanted: Sequence[Wanted],
    store: CollateralStore,
    fetcher: Fetcher,
    *,
    at: datetime,
    parallel: int = 4,
    limit: int = 1000,
) -> tuple[Fetched, ...]:
    """Get what is wanted and not held, and keep it.

    A piece is held while three quarters of its life are left. Manifests are always asked for: a newer issue has the
    name of the one before.

    Args:
        wanted: in any order; the outcome is in the same.
        store: where to keep it.
        fetcher: who asks.
        at: aware; the time by which pieces are fresh.
        parallel: how many are asked for at once.
        limit: how many are asked for at most.

    Raises:
        EnvironmentFault: the store cannot be read or written. That a server cannot be reached is an outcome.
    """
    pieces = store.pieces()
    fresh = [_is_fresh(each, pieces, at) for each in wanted]
    asked = [number for number, known in enumerate(fresh) if not known][:limit]
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        futures = {number: pool.submit(_get, wanted[number], fetcher) for number in asked}
    answers = {number: future.result() for number, future in futures.items()}
    outcomes: list[Fetched] = []
    for number, (each, known) in enumerate(zip(wanted, fresh, strict=True)):
        found = answers.get(number)
        if known or found is None:
            outcomes.append(Fetched(each, "held" if known else "left"))
        elif isinstance(found, WeighbridgeError):
            outcomes.append(Fetched(each, "failed", error=found))
        else:
            outcomes.append(Fetched(each, "new" if any(store.put(found)) else "same", pieces=found))
    return tuple(outcomes)


def _is_fresh(wanted: Wanted, pieces: Sequence[Description], at: datetime) -> bool:
    if wanted.kind == "rim":
        return False
    piece = held(wanted, pieces, at)
    if piece is None:
        return False
    # A revocation has no end; what it says will not get better.
    return piece.expires is None or (at - piece.issued) * _LIFE_PARTS <= piece.expires - piece.issued


def _get(wanted: Wanted, fetcher: Fetcher) -> tuple[Description, ...] | WeighbridgeError:
    """The pieces that answer, or why there are none: one that fails does not keep the others."""
    try:
        answers = [fetcher.fetch(url, body=wanted.body, limit=FILE_MAX) for url in wanted.urls]
        found = _read(wanted, answers)
        _check(wanted, found)
    except (EnvironmentFault, MalformedEvidence, NotAuthentic) as error:
        return error
    return found


def _read(wanted: Wanted, answers: Sequence[Answer]) -> tuple[Description, ...]:
    if wanted.kind == "dcap":
        return (describe(CollateralItem("dcap", _dcap(answers)), where=wanted.urls[0]),)
    return recognise(answers[0].body, where=wanted.urls[0])


def _check(wanted: Wanted, found: Sequence[Description]) -> None:
    """Require what was asked for, among whatever else the maker publishes with it."""
    others = [piece for piece in found if piece.kind != wanted.kind]
    if others or wanted.subject not in {piece.subject for piece in found}:
        raise MalformedEvidence(
            Code.COLLATERAL_INVALID,
            "the answer is about something else",
            where=wanted.urls[0],
            expected=f"{wanted.kind} {wanted.subject}",
            got=", ".join(f"{piece.kind} {piece.subject}" for piece in found),
            hint="Has a mirror or a proxy answered in the maker's place?",
        )
    if wanted.issuer is not None:
        certificate, issuer = wanted.issuer
        for piece in found:
            ocsp.verify_ocsp(ocsp.parse(piece.item.data), certificate, Authority.of(issuer))


def _dcap(answers: Sequence[Answer]) -> bytes:
    """Intel's four answers, in the order of :mod:`.wanted`, as the one document that :mod:`dcap_qvl` reads."""
    info, identity, pck_crl, root_crl = answers
    fields: dict[str, strict.JsonValue] = {"root_ca_crl": root_crl.body.hex(), "pck_crl": pck_crl.body.hex()}
    for name, answer in (("tcb_info", info), ("qe_identity", identity)):
        match = _SIGNED.fullmatch(answer.body.strip())
        if match is None:
            raise _not_intels(f"{name} is not a signed document", answer.body[:16].hex())
        fields[name] = match[1].decode("utf-8", errors="replace")
        fields[f"{name}_signature"] = match[2].decode("ascii")
    headers = {
        "tcb_info_issuer_chain": (info, "tcb-info-issuer-chain"),
        "qe_identity_issuer_chain": (identity, "sgx-enclave-identity-issuer-chain"),
        "pck_crl_issuer_chain": (pck_crl, "sgx-pck-crl-issuer-chain"),
    }
    for name, (answer, header) in headers.items():
        fields[name] = unquote(_header(answer.headers, header))
    return strict.json_encode(fields)


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None or len(value) > limits.COLLATERAL_ITEM_MAX:
        raise _not_intels(f"header {name} is not there", ", ".join(headers)[:80])
    return value


def _not_intels(message: str, got: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.COLLATERAL_INVALID,
        f"not an answer of Intel's service: {message}",
        where="dcap",
        got=got,
        clause="Intel SGX and TDX Provisioning Certification Service API v4",
    )
