"""What is found of recorded GPU evidence: the question, a device's facts, the reasons, and the whole judgement.

Made by :mod:`.gpu_judgement`; told by :mod:`.gpu_tree` and :mod:`.gpu_document`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence, NotAuthentic
from weighbridge.verifier import certs
from weighbridge.verifier.appraisal import NOT_PROVEN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import Self

    from cryptography import x509

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.gpu import VerifiedGpuReport
    from weighbridge.verifier.gpu.revocation import Ignored, Revocation, RevocationStatus
    from weighbridge.verifier.gpu.rim.compare import Measured, Owner
    from weighbridge.verifier.gpu.rim.load import Disbelieved
    from weighbridge.verifier.gpu.rim.verify import VerifiedRim

__all__ = [
    "WORST_LAST",
    "Device",
    "Facts",
    "Judgement",
    "Manifest",
    "Missing",
    "Question",
    "Reason",
    "Said",
    "Standing",
    "Topology",
]

WORST_LAST: Final = (
    ExitCode.AFFIRMED,
    ExitCode.INDETERMINATE,
    ExitCode.DENIED,
    ExitCode.NOT_AUTHENTIC,
    ExitCode.MALFORMED,
)
Topology = Literal["complete", "not claimed", "wrong", "not judged"]
_ONCE: Final = "that it is so now: recorded evidence shows what a device signed once"
_ISSUANCE: Final = "issuance: a responder says good of serial numbers that it has never seen, too"
_BOARD: Final = "for which board a VBIOS's manifest is meant: that is in no signed byte"
_LEFT_OUT: Final = "that no device of the host was left out: outside of protected PCIe nothing names the others"
# Of what a session's verdict does not show, what a device's own evidence does not either.
_OF_DEVICES: Final = NOT_PROVEN[:2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        nonce: what every device was to sign; ``None`` for what the file claims of each, which proves no freshness.
        at: aware; the time by which everything is judged.
        anchors: who is believed.
        architectures: those that are accepted; empty for any that is known.
        whole: whether the devices are presented as all of a host's, not as one of them.
    """

    nonce: bytes | None
    at: datetime
    anchors: TrustAnchors
    architectures: tuple[str, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the answer is not a better one than ``status``, and what to do about it where that can be said."""

    status: ExitCode
    code: Code
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is known of one certificate, by its common name: other names in it, and its serial number, tell devices."""

    name: str
    status: RevocationStatus
    detail: str
    until: datetime | None
    used: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of a chain's certificates, ``worst`` of the worst of them. ``until`` as of :class:`Revocation`."""

    worst: Said | None
    links: tuple[Said, ...]
    status: RevocationStatus
    until: datetime | None
    ignored: tuple[Ignored, ...]

    @classmethod
    def of(cls, revocation: Revocation, certificates: Sequence[x509.Certificate]) -> Self:
        """``revocation`` of ``certificates``."""
        links = tuple(
            Said(
                name=certs.common_name(certificate.subject, "chain"),
                status=link.status,
                detail=link.detail.removeprefix(f"{link.subject}: "),
                until=link.until,
                used=link.used,
            )
            # All but a root have a link.
            for certificate, link in zip(certificates, revocation.links, strict=False)
        )
        return cls(
            worst=next((link for link in links if link.status == revocation.status), None),
            links=links,
            status=revocation.status,
            until=revocation.until,
            ignored=revocation.ignored,
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that measurements were compared with, and what is known of its signer's certificates."""

    owner: Owner
    rim: VerifiedRim
    signer: Standing


@dataclass(frozen=True, slots=True)
class Missing:
    """A manifest that is needed and does not count, by the name under which NVIDIA's service has it, and why."""

    service_id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a device whose evidence is authentic."""

    verified: VerifiedGpuReport
    measured: Measured
    manifests: tuple[Manifest, ...]
    missing: tuple[Missing, ...]
    revocation: Standing
    findings: tuple[tuple[Code, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device.

    Attributes:
        number: its place in the evidence, from 1.
        claimed_arch: the file's word.
        found: what is known of it, or the refusal of its evidence.
        reasons: none for one that is affirmed.
    """

    number: int
    claimed_arch: str | None
    found: Facts | MalformedEvidence | NotAuthentic
    reasons: tuple[Reason, ...]

    @property
    def facts(self) -> Facts | None:
        """What is known of it, if its evidence is authentic."""
        return self.found if isinstance(self.found, Facts) else None

    @property
    def status(self) -> ExitCode:
        """The worst of the reasons'."""
        return _worst(self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What all of it comes to.

    Attributes:
        devices: in the order of the evidence.
        topology: whether protected-PCIe GPUs and switches name each other and nobody else.
        together: what the devices are refused for, or leave open, taken together.
        disbelieved: manifests at hand that are none of a maker's who is believed.
    """

    devices: tuple[Device, ...]
    topology: Topology
    together: tuple[Reason, ...]
    disbelieved: tuple[Disbelieved, ...]

    @property
    def status(self) -> ExitCode:
        """The worst of all reasons'."""
        return _worst([reason for _, reason in self.reasons])

    @property
    def reasons(self) -> tuple[tuple[int | None, Reason], ...]:
        """Every reason with its device's number, ``None`` where it is of all of them; the worst first."""
        found: list[tuple[int | None, Reason]] = [
            (device.number, reason) for device in self.devices for reason in device.reasons
        ]
        found += [(None, reason) for reason in self.together]
        return tuple(sorted(found, key=lambda item: -WORST_LAST.index(item[1].status)))

    @property
    def facts(self) -> tuple[Facts, ...]:
        """Those of the authentic devices."""
        return tuple(device.facts for device in self.devices if device.facts is not None)

    def count(self, kind: Literal["gpu", "switch"]) -> int:
        """How many authentic devices there are of this kind; one that is there twice counts once."""
        return len({facts.verified.identity for facts in self.facts if facts.verified.kind == kind})

    @property
    def not_proven(self) -> tuple[str, ...]:
        """What the best answer does not show."""
        statuses = {facts.revocation.status for facts in self.facts}
        owners = {manifest.owner for facts in self.facts for manifest in facts.manifests}
        return (
            *_OF_DEVICES,
            _ONCE,
            *((_ISSUANCE,) if "good" in statuses else ()),
            *((_BOARD,) if "vbios" in owners else ()),
            *((_LEFT_OUT,) if self.topology != "complete" else ()),
        )


def _worst(reasons: Sequence[Reason]) -> ExitCode:
    return max((reason.status for reason in reasons), key=WORST_LAST.index, default=ExitCode.AFFIRMED)
