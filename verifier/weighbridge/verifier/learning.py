"""What a host was when it enrolled, as content for a host set: quoted registers, firmware, and IMA's list.

Everything here comes from an enrolment that was verified again: the registers and the firmware's version are in the
quote, and the list leads to the quoted PCR 10. That the host was a good one, nothing here can tell: whatever booted and
ran before the enrolment is learned, an intruder's program among the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.errors import Code, Indeterminate
from weighbridge.proto.eventlog import ima
from weighbridge.proto.host_set import UNFIT_PCRS, AcceptedFile, FileKind
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.verifier.boot.facts import IMA_PCR
from weighbridge.verifier.boot.runtime import RuntimeLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.proto.enrolment import EnrolmentProof
    from weighbridge.verifier.replay import ReplayedEnrolment

__all__ = ["Learned", "learn", "matches", "order"]

_AGGREGATE: Final = "boot_aggregate"
# IMA's words for the digests that a set can name. `ima:` is the second template version's word for a file's content.
_KINDS: Final = {
    "sha256": FileKind.CONTENT,
    "ima:sha256": FileKind.CONTENT,
    "verity:sha256": FileKind.VERITY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What was found.

    Attributes:
        pcrs: register of the SHA-256 bank to the quoted value.
        firmware: version of the TPM's firmware.
        files: in the order of a set; none where ``listed`` is false.
        listed: whether the enrolment carried IMA's list, and quoted the register that vouches for it.
        violations: entries of which the kernel could not say what they measured.
        others: entries whose digest is not SHA-256: no set can name them.
        unmatched: patterns that no entry's path matches.
    """

    pcrs: dict[int, bytes]
    firmware: int
    files: tuple[AcceptedFile, ...]
    listed: bool
    violations: int
    others: int
    unmatched: tuple[str, ...]


def learn(
    replayed: ReplayedEnrolment, proof: EnrolmentProof, *, pcrs: Sequence[int] | None, attester: Sequence[str]
) -> Learned:
    """What the enrolment shows.

    Args:
        replayed: verified again.
        proof: of that enrolment.
        pcrs: which registers to learn; ``None`` for those to which the session's keys were bound.
        attester: patterns of paths, as of a shell, that say which files are of the attester's own code.

    Raises:
        MalformedEvidence: the logs are not well-formed.
        NotAuthentic: ``RUNTIME_LOG`` when IMA's list does not lead to the quoted register.
        Indeterminate: ``UNPROVEN`` when a register was not quoted, or in another bank than SHA-256.
    """
    quote, requirements = replayed.enrolled.quote, replayed.requirements
    if quote.bank is not HashAlgorithm.SHA256:  # pragma: no cover - requirements name no other bank yet
        raise Indeterminate(
            Code.UNPROVEN,
            "the session quoted another bank than a host set names",
            where="session",
            expected="sha256",
            got=quote.bank.name.lower(),
            hint="demand the bank sha256 in the requirements, and enrol the host again",
        )
    unfit = UNFIT_PCRS | {requirements.log_pcr}
    wanted = [index for index in requirements.boot_pcrs if index not in unfit] if pcrs is None else pcrs
    for index in wanted:
        if index in unfit or index not in quote.pcrs:
            raise Indeterminate(
                Code.UNPROVEN,
                f"PCR {index} has no value to expect" if index in unfit else f"PCR {index} was not quoted",
                where="--pcrs",
                expected=", ".join(str(number) for number in sorted(quote.pcrs.keys() - unfit)),
                got=index,
                hint="files, adapters and models come and go in the PCRs of IMA and of the measurement log"
                if index in unfit
                else "demand it in the requirements, and enrol the host again",
            )
    runtime = None if proof.boot is None else BootLogs.parse(proof.boot).runtime
    entries: tuple[ima.Entry, ...] = ()
    if runtime is not None and IMA_PCR in quote.pcrs:
        RuntimeLog.empty().extended(runtime, quoted=quote.pcrs[IMA_PCR], bank=quote.bank)
        entries = ima.parse(runtime)
        # The first entry is of the registers, not of a file, and is compared with them.
        entries = entries[1:] if entries and entries[0].path == _AGGREGATE else entries
    files = _files(entries, attester)
    return Learned(
        pcrs={index: quote.pcrs[index] for index in sorted(set(wanted))},
        firmware=quote.state.firmware,
        files=files,
        listed=bool(entries),
        violations=sum(entry.violation for entry in entries),
        others=sum(not entry.violation and entry.algorithm not in _KINDS for entry in entries),
        unmatched=tuple(
            pattern for pattern in attester if not any(matches(entry.path, [pattern]) for entry in entries)
        ),
    )


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether one of ``patterns``, as of a shell, is that of ``path``; ``*`` goes beyond slashes."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def order(files: Iterable[AcceptedFile]) -> tuple[AcceptedFile, ...]:
    """``files`` in the order of a set, each digest once: the first's path, and the attester's if one of them is."""
    found: dict[tuple[int, bytes], AcceptedFile] = {}
    kinds = list(FileKind)
    for file in files:
        key = kinds.index(file.kind), file.digest
        known = found.get(key)
        if known is None:
            found[key] = file
        elif file.attester and not known.attester:
            found[key] = AcceptedFile(known.kind, known.digest, known.path or file.path, attester=True)
    return tuple(file for _, file in sorted(found.items()))


def _files(entries: Iterable[ima.Entry], attester: Sequence[str]) -> tuple[AcceptedFile, ...]:
    return order(
        AcceptedFile(
            _KINDS[entry.algorithm],
            entry.content_digest,
            _hint(entry.path),
            matches(entry.path, attester),
        )
        for entry in entries
        if not entry.violation and entry.algorithm in _KINDS
    )


def _hint(path: str) -> str:
    """The end of a path that is too long: the file's name is there."""
    return path.encode()[-limits.NAME_MAX :].decode(errors="ignore")
