"""Verifies what ran and was read: IMA's list, replayed step by step to the PCR 10 that each quote signs.

The procedure of :meth:`RuntimeLog.extended`:

1. What came is well-formed entries, each with the template hash of its data.
2. Each extends PCR 10, and no other register.
3. Together they lead from the value before to the quoted one, exactly: no entry is missing, added, changed, or ahead.
4. What each says was measured is added to what is known; violations are counted.

Left to the caller: that a TPM signed the value, that the digests are in a closed set, that there are no violations, and
that the first entry is of this boot (:func:`boot_aggregate`). **Not proven**: that the kernel measured all that
mattered, which its policy decides; paths, which are hints; and anything if the kernel is not the one that it should be.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, NoReturn, Self, final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.eventlog import ima
from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size
from weighbridge.verifier.boot.facts import IMA_PCR

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

__all__ = ["Aggregate", "RuntimeEntry", "RuntimeLog", "boot_aggregate", "unknown"]

_SEAL: Final = object()

_HASHES: Final = {
    HashAlgorithm.SHA256: hashlib.sha256,
    HashAlgorithm.SHA384: hashlib.sha384,
    HashAlgorithm.SHA512: hashlib.sha512,
}
_BUFFER_TEMPLATE: Final = "ima-buf"
_AGGREGATE: Final = "boot_aggregate"
# The second version of templates says which kind of digest it is; one of a file's content is named as in the first.
_CONTENT_KIND: Final = "ima:"
# Linux security/integrity/ima/ima_crypto.c: PCR 0 to 7, since 5.8 in other banks than SHA-1 PCR 8 and 9 too.
_AGGREGATED: Final = (range(8), range(10))

Aggregate = Literal["fits", "differs", "unknown"]


class RuntimeEntry(NamedTuple):
    """What an entry says was measured.

    ``name`` is as in a closed set: ``sha256:hex`` of a content, ``verity:sha256:hex`` of an fs-verity descriptor.
    ``path`` is a hint. ``kind`` is ``buffer`` for what the kernel measured of itself: the command line of a next
    kernel, keys, critical data.
    """

    name: str
    path: str
    kind: Literal["file", "buffer"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeLog:
    """IMA's list up to a quoted value. Made by :meth:`empty` and :meth:`extended` only.

    The seal is a guard against mistakes, not against hostile code.

    Attributes:
        bank: of the quotes; ``None`` before the first.
        value: what PCR 10 holds; empty before the first quote.
        count: entries so far, violations among them.
        violations: entries of which the kernel could not say what they measured.
        first_violation: the path that the first of them hints at.
        aggregate: algorithm and digest of the first entry, where it is the aggregate of the boot's registers.
        files: everything that was ever measured by name, each once, with the path of its first entry.
        fresh: what the last step brought and no step before, in order.
    """

    bank: HashAlgorithm | None
    value: bytes
    count: int
    violations: int
    first_violation: str
    aggregate: tuple[str, bytes] | None
    files: Mapping[str, RuntimeEntry]
    fresh: tuple[RuntimeEntry, ...]
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("RuntimeLog is made by empty and extended only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("RuntimeLog cannot be pickled")

    @classmethod
    def empty(cls) -> Self:
        """A list without entries: before the first quote."""
        return cls(
            bank=None,
            value=b"",
            count=0,
            violations=0,
            first_violation="",
            aggregate=None,
            files=MappingProxyType({}),
            fresh=(),
            seal=_SEAL,
        )

    def extended(self, data: bytes, *, quoted: bytes, bank: HashAlgorithm) -> RuntimeLog:
        """This list and the entries in ``data``, by the procedure in the module's docstring.

        Without new entries it takes no time to speak of; with some it takes as long as they are many, and copies the
        table of what is known.

        Args:
            data: untrusted: what the kernel's list has gained, all of it and nothing beyond the quote.
            quoted: PCR 10, as a verified quote signs it.
            bank: the quoted one; the same in every step.

        Raises:
            MalformedEvidence: ``LOG_DIGEST`` or another decoding code; ``TOO_LARGE`` for more distinct digests than
                :data:`limits.EVENT_LOG_EVENTS_MAX`.
            NotAuthentic: ``RUNTIME_LOG``.
            ValueError: for the SHA-1 bank, another bank than before, or a value of the wrong length.
        """
        if bank not in _HASHES or self.bank not in {None, bank}:
            raise ValueError(f"the {bank.name} bank is not the one of this list")
        if len(quoted) != digest_size(bank):
            raise ValueError(f"PCR 10 has {digest_size(bank)} bytes in the {bank.name} bank, not {len(quoted)}")
        before = self.value or bytes(digest_size(bank))
        if not data and before == quoted and self.bank is not None and not self.fresh:
            # Nothing new since a step with nothing new: windows are like that.
            return self
        # 1.
        entries = ima.parse(data)
        # 2. and 3.
        _check_register(entries, self.count)
        if _replay(before, entries, bank) != quoted:
            raise _elsewhere(before, entries, bank, quoted, self.count)
        # 4.
        return self._with(entries, quoted, bank)

    def _with(self, entries: Sequence[ima.Entry], value: bytes, bank: HashAlgorithm) -> RuntimeLog:
        if not entries:
            return replace(self, bank=bank, value=value, fresh=())
        aggregate, first_violation = self.aggregate, self.first_violation
        violations = self.violations
        files = dict(self.files)
        fresh: list[RuntimeEntry] = []
        for number, entry in enumerate(entries, start=self.count):
            if entry.violation:
                violations += 1
                first_violation = first_violation or entry.path
                continue
            if number == 0 and entry.path == _AGGREGATE:
                aggregate = (entry.algorithm, entry.content_digest)
                continue
            name = f"{entry.algorithm.removeprefix(_CONTENT_KIND)}:{entry.content_digest.hex()}"
            if name not in files:
                made = RuntimeEntry(name, entry.path, "buffer" if entry.template == _BUFFER_TEMPLATE else "file")
                files[name] = made
                fresh.append(made)
        if len(files) > limits.EVENT_LOG_EVENTS_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE,
                "too many distinct files were measured",
                where="runtime",
                expected=f"<= {limits.EVENT_LOG_EVENTS_MAX}",
                got=len(files),
            )
        return RuntimeLog(
            bank=bank,
            value=value,
            count=self.count + len(entries),
            violations=violations,
            first_violation=first_violation,
            aggregate=aggregate,
            files=MappingProxyType(files),
            fresh=tuple(fresh),
            seal=_SEAL,
        )


def boot_aggregate(log: RuntimeLog, pcrs: Mapping[int, bytes], bank: HashAlgorithm) -> Aggregate:
    """Whether the list's first entry is of the registers of this boot.

    ``unknown`` where that cannot be computed: the kernel took another bank, or registers are not among ``pcrs``.

    Args:
        log: at least one step.
        pcrs: what the registers held when the kernel began; see ``BootFacts.before_kernel``.
        bank: of these values.
    """
    if log.aggregate is None:
        return "differs" if log.count else "unknown"
    algorithm, value = log.aggregate
    if algorithm.removeprefix(_CONTENT_KIND) != bank.name.lower():
        return "unknown"
    computable = [registers for registers in _AGGREGATED if all(pcr in pcrs for pcr in registers)]
    if any(digest(bank, *(pcrs[pcr] for pcr in registers)) == value for registers in computable):
        return "fits"
    return "differs" if len(computable) == len(_AGGREGATED) else "unknown"


def unknown(log: RuntimeLog, closed: Container[str]) -> tuple[RuntimeEntry, ...]:
    """Everything that was measured and that ``closed`` does not name, in the order of the list."""
    return tuple(entry for name, entry in log.files.items() if name not in closed)


def _check_register(entries: Sequence[ima.Entry], first: int) -> None:
    for number, entry in enumerate(entries, start=first):
        if entry.pcr != IMA_PCR:
            raise NotAuthentic(
                Code.RUNTIME_LOG,
                "an entry of the kernel's list extends another register",
                where=f"runtime[{number}]",
                expected=f"PCR {IMA_PCR}",
                got=f"PCR {entry.pcr}",
                hint="take the pcr= options out of the IMA policy",
            )


def _replay(value: bytes, entries: Sequence[ima.Entry], bank: HashAlgorithm) -> bytes:
    hashed = _HASHES[bank]
    violation = b"\xff" * digest_size(bank)
    for entry in entries:
        extended = violation if entry.violation else hashed(ima.hashed_bytes(entry.template, entry.data)).digest()
        value = hashed(value + extended).digest()
    return value


def _elsewhere(
    before: bytes, entries: Sequence[ima.Entry], bank: HashAlgorithm, quoted: bytes, first: int
) -> NotAuthentic:
    """Says where the list goes wrong, as far as can be told."""
    value = before
    led = 0 if value == quoted else None
    padded = before
    for number, entry in enumerate(entries, start=1):
        value = _replay(value, [entry], bank)
        if value == quoted:
            led = number
        size = digest_size(bank)
        padded = digest(bank, padded, b"\xff" * size if entry.violation else entry.template_hash.ljust(size, b"\0"))
    if led is not None:
        hint = f"the first {led} of its {len(entries)} new entries lead there: send none that came after the quote"
    elif padded == quoted:
        hint = "this kernel is older than 5.8 and extends SHA-1 digests into every bank: update it"
    else:
        hint = "entries are missing or changed, or the kernel measured between list and quote: then try again"
    return NotAuthentic(
        Code.RUNTIME_LOG,
        "the kernel's list leads to another value than was quoted",
        where=f"PCR {IMA_PCR}, {bank.name.lower()}, entries {first} to {first + len(entries)}",
        expected=quoted,
        got=value,
        hint=hint,
    )
