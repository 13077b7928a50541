"""PCR values, and quotes over them, while other programs extend PCRs.

Reading takes several commands, and a quote is one more: between any two of them the kernel may extend PCR 10. The
values that go with a quote are those whose digest it signed, whoever saw them: in the read before it, in the read after
it, one of each, or, for a register of which the host keeps a list, what the list says the register was in between.
"""

from __future__ import annotations

import itertools
import random
import time
from typing import TYPE_CHECKING, Final

from weighbridge.attester.tpm import faults
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm import attest as attests
from weighbridge.proto.tpm import public as publics
from weighbridge.proto.tpm.attest import QuoteInfo
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.pcr import PcrBank, PcrSelection, pcr_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from weighbridge.attester.tpm.esapi import Esapi, Loaded
    from weighbridge.attester.tpm.interface import RegisterHistory

__all__ = ["active_banks", "attempts", "quote", "read"]

_READ_MAX: Final = 8
# For how many seconds PCRs may move under a reader (IMA extends PCR 10 with every new file), and how long to stand back
# between attempts, so as not to keep pace with who moves them.
PATIENCE: Final = 10.0
_STAND_BACK: Final = 0.01
# How many sets of values are compared with one quote: a hash of 500 bytes each.
_CANDIDATES_MAX: Final = 200_000


def attempts() -> Iterator[None]:
    """As many as there is time for; at least two."""
    deadline = time.monotonic() + PATIENCE
    yield
    yield
    while time.monotonic() < deadline:
        time.sleep(random.uniform(0, _STAND_BACK))  # noqa: S311 - jitter, not a secret
        yield


def active_banks(esapi: Esapi) -> tuple[HashAlgorithm, ...]:
    """The PCR banks that are allocated.

    Raises:
        EnvironmentFault: ``TPM_FAILED`` for a bank that we could not extend.
    """
    active = esapi.active_banks()
    unknown = [algorithm for algorithm in active if algorithm not in set(HashAlgorithm)]
    if unknown:
        # Left out it could be extended by anybody; and we cannot hash for it.
        raise EnvironmentFault(
            Code.TPM_FAILED,
            "a PCR bank of an unknown hash is active",
            got=", ".join(f"{algorithm:#06x}" for algorithm in unknown),
            hint="Allocate the SHA-256 and SHA-384 banks only: tpm2_pcrallocate sha256:all+sha384:all.",
        )
    return tuple(sorted(HashAlgorithm(algorithm) for algorithm in active))


def read(esapi: Esapi, selection: PcrSelection) -> dict[int, bytes]:
    """All values of one moment: the update counter did not move from the first part to the last.

    Raises:
        EnvironmentFault: ``TPM_BUSY`` if they never hold still, ``TPM_FAILED`` if the bank is not active.
    """
    for _ in attempts():
        counters, values = _read_once(esapi, selection)
        if len(counters) == 1:
            return values
    raise _restless(selection)


def quote(
    esapi: Esapi,
    ak: Loaded,
    selection: PcrSelection,
    qualifying_data: bytes,
    *,
    histories: Mapping[int, RegisterHistory],
) -> QuoteEvidence:
    """A quote by ``ak``, with the values that it signs.

    Args:
        esapi: the TPM.
        ak: a key with a fixed scheme, whose hash is that of the signed digest.
        selection: of one bank.
        qualifying_data: at most 64 bytes.
        histories: for registers that move all the time, where their values can be looked up.

    Raises:
        EnvironmentFault: as :func:`read`.
    """
    with faults.well_formed("quote"):
        algorithm = publics.parse(ak.public).signing_algorithm().hash
    _, before = _read_once(esapi, selection)
    for _ in attempts():
        raw, signature = esapi.quote(ak, selection, qualifying_data)
        with faults.well_formed("quote"):
            info = attests.parse(raw).attested
        signed = info.digest if isinstance(info, QuoteInfo) else b""
        # In most cases nothing moved: another read would only cost time.
        if pcr_digest(algorithm, tuple(before.values())) == signed:
            return QuoteEvidence(attest=raw, signature=signature, pcr_values=tuple(before.values()))
        _, after = _read_once(esapi, selection)
        for values in itertools.islice(_candidates(selection, before, after, histories), _CANDIDATES_MAX):
            if pcr_digest(algorithm, values) == signed:
                return QuoteEvidence(attest=raw, signature=signature, pcr_values=tuple(values))
        before = after
    raise _restless(selection)


def _candidates(
    selection: PcrSelection,
    before: Mapping[int, bytes],
    after: Mapping[int, bytes],
    histories: Mapping[int, RegisterHistory],
) -> Iterator[Sequence[bytes]]:
    """What the registers may have held between two reads, the likely first."""
    bank = HashAlgorithm(selection.banks[0].algorithm)
    moved = {pcr for pcr in before if before[pcr] != after[pcr]}
    yield from itertools.product(*((before[pcr], after[pcr]) if pcr in moved else (before[pcr],) for pcr in before))
    if moved & set(histories):
        yield from itertools.product(
            *(
                (before[pcr], *_between(histories[pcr].after(before[pcr], bank), after[pcr]), after[pcr])
                if pcr in moved and pcr in histories
                else (before[pcr], after[pcr])
                if pcr in moved
                else (before[pcr],)
                for pcr in before
            )
        )


def _between(values: Iterator[bytes], last: bytes) -> Iterator[bytes]:
    """``values`` before ``last``; all of them if it is not among them: then they end before it."""
    return itertools.takewhile(lambda value: value != last, values)


def _read_once(esapi: Esapi, selection: PcrSelection) -> tuple[set[int], dict[int, bytes]]:
    """The values as they are read part by part, and the update counters at each part."""
    if len(selection.banks) != 1:
        raise ValueError("one bank at a time")
    bank = selection.banks[0]
    counters: set[int] = set()
    values: dict[int, bytes] = {}
    for start in range(0, len(bank.indices), _READ_MAX):
        part = bank.indices[start : start + _READ_MAX]
        counter, digests = esapi.read_pcrs(PcrSelection((PcrBank(bank.algorithm, part),)))
        if len(digests) != len(part):
            raise EnvironmentFault(
                Code.TPM_FAILED,
                "TPM does not give these PCRs: is the bank active?",
                where=str(selection),
                hint="Allocate it: tpm2_pcrallocate sha256:all+sha384:all, then reboot.",
            )
        counters.add(counter)
        values.update(zip(part, digests, strict=True))
    return counters, values


def _restless(selection: PcrSelection) -> EnvironmentFault:
    return EnvironmentFault(
        Code.TPM_BUSY,
        "PCRs keep changing while they are read",
        where=str(selection),
        hint="Another program extends PCRs without pause. If it is IMA, let the attester read its list: --boot-logs.",
    )
