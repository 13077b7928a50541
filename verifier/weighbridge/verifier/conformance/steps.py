"""The form of a case: what a verifier is told, step by step, and what it has to answer. ``docs/conformance.md``.

Bytes are base64 (RFC 4648 §4, padded); keys, digests and identities are lower-case hexadecimal; times are RFC 3339,
UTC. The JSON Schema of both is made from these classes (``docs/conformance.schema.json``).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from weighbridge.verifier.conformance.fields import Base64, File, Hex, Time, digits, moment_of, octets
from weighbridge.verifier.conformance.result import Outcome, Result
from weighbridge.verifier.documents import Document

__all__ = [
    "ANSWER",
    "CASE",
    "Answered",
    "Bundle",
    "Case",
    "Clear",
    "Close",
    "EventLog",
    "Expected",
    "File",
    "GpuReport",
    "Issue",
    "Keys",
    "Nras",
    "Open",
    "Owners",
    "Pool",
    "Prove",
    "Put",
    "Read",
    "Refresh",
    "Resume",
    "Said",
    "Start",
    "Step",
    "Terms",
    "Token",
    "Watch",
    "Window",
    "digits",
    "moment_of",
    "octets",
    "said",
]

CASE: Literal["weighbridge/conformance-case/v1"] = "weighbridge/conformance-case/v1"
ANSWER: Literal["weighbridge/conformance-answer/v1"] = "weighbridge/conformance-answer/v1"


class Keys(Document):
    """A verifier's private keys, PKCS #8 in DER: P-256 signs terms and tokens, Ed25519 the ledger's heads.

    Sessions name the first one's public half, so whoever is to judge them has to be the verifier that they name.
    """

    signing: Base64
    ledger: Base64


class Owners(Document):
    """Signed files that owners keep up to date, which the verifier looks at before every window and proof.

    ``sets`` are of models, hosts and baselines, ``policies`` are policy bundles (``docs/protocol.md`` §9); ``anchors``
    says whose signatures count, and ``baselines`` whether sets of baselines are taken at all.
    """

    sets: tuple[File, ...]
    policies: tuple[File, ...]
    anchors: Base64
    baselines: bool


class Start(Document):
    """A verifier comes up over the durable state numbered ``state``: a new one, or what was there before.

    ``requirements``, ``anchors`` and ``reference`` are JSON documents (``docs/protocol.md`` §9), ``policy`` is Rego in
    package ``weighbridge.policy`` with its library, ``models`` are packed manifests, ``collateral`` is what makers of
    hardware have published and ``publishers`` whom the verifier believes about that; ``baselines`` are signed sets.
    ``root`` stands in every challenge in the place of the ledger's root. Where there are ``owners``, what their files
    say is added to ``reference``, and ``policy``, if any, is for whoever has no bundle.
    """

    op: Literal["start"]
    verifier: int
    state: int
    at: Time
    keys: Keys
    root: Hex
    requirements: Base64
    anchors: Base64
    reference: Base64
    policy: tuple[File, ...]
    models: tuple[Base64, ...]
    collateral: Base64
    publishers: Base64
    baselines: tuple[Base64, ...]
    owners: Owners | None


class Put(Document):
    """An owner's file is replaced while the verifier runs. Nobody tells the verifier."""

    op: Literal["put"]
    verifier: int
    file: File


class Refresh(Document):
    """The verifier looks at its owners' files now, as an operator may ask it to."""

    op: Literal["refresh"]
    verifier: int
    at: Time


class Pool(Document):
    """An operator imports a pool of spot challenges."""

    op: Literal["spot-pool"]
    state: int
    pool: Base64


class Clear(Document):
    """An operator forgives what sticks to an attestation key or a GPU."""

    op: Literal["clear"]
    state: int
    at: Time
    kind: Literal["ak", "gpu"]
    identity: Hex
    reason: str


class Issue(Document):
    """What the verifier has to hand out in this step, in place of what it would draw: evidence answers it already.

    ``challenge`` is what leaves; ``random`` is what this project's verifier makes it of, with ``root`` (protocol §4).
    ``secret`` is what a TPM finds in the credential of an enrolment. ``None``: there is no such thing in this step.
    """

    session: Hex | None = None
    random: Hex | None = None
    secret: Hex | None = None
    challenge: Hex | None = None


class Open(Document):
    """An attester opens an enrolment, over a channel whose TLS key has the SHA-256 ``peer``."""

    op: Literal["open"]
    verifier: int
    at: Time
    peer: Hex
    opening: Base64
    issue: Issue


class Prove(Document):
    """It answers the challenge."""

    op: Literal["prove"]
    verifier: int
    at: Time
    peer: Hex
    proof: Base64
    issue: Issue


class Window(Document):
    """A window's evidence comes in."""

    op: Literal["window"]
    verifier: int
    at: Time
    peer: Hex
    session: Hex
    window: Base64
    issue: Issue


class Resume(Document):
    """An attester takes its session up again."""

    op: Literal["resume"]
    verifier: int
    at: Time
    peer: Hex
    session: Hex
    issue: Issue


class Close(Document):
    """An attester ends its session."""

    op: Literal["close"]
    verifier: int
    at: Time
    peer: Hex
    session: Hex


class Token(Document):
    """A result token is shown to a relying party: signed by ``key`` (SubjectPublicKeyInfo), for ``audience``.

    Where ``upstream`` is given, the server behind the gate presents a TLS key of that SHA-256.
    """

    op: Literal["token"]
    at: Time
    token: str
    key: Base64
    audience: str
    upstream: Hex | None


class Terms(Document):
    """Signed terms are shown to an attester that trusts the verifier with ``key`` (SubjectPublicKeyInfo)."""

    op: Literal["terms"]
    terms: Base64
    key: Base64


class Nras(Document):
    """An answer of NVIDIA's attestation service, with archived key sets, about what was asked over ``nonce``.

    Where ``devices`` is given, the service has to speak of exactly those serial numbers (20 bytes, big-endian), and to
    say nothing against them.
    """

    op: Literal["nras"]
    at: Time
    answer: Base64
    key_sets: tuple[Base64, ...]
    anchors: Base64
    nonce: Hex
    devices: tuple[Hex, ...] | None


class EventLog(Document):
    """An event log, and the values of PCRs, by their numbers, to which it has to lead in the bank ``bank``.

    ``whole``: it has to tell of a boot of firmware from the beginning to its end.
    """

    op: Literal["event-log"]
    log: Base64
    bank: Literal["sha256"]
    registers: dict[str, Hex]
    whole: bool


class GpuReport(Document):
    """One GPU's SPDM report with its certificates (DER, leaf first), which has to be over ``nonce``."""

    op: Literal["gpu-report"]
    at: Time
    report: Base64
    chain: tuple[Base64, ...]
    anchors: Base64
    nonce: Hex


class Bundle(Document):
    """A recorded session, for a relying party that believes ``anchors``.

    It judges by the policy and the collateral that were recorded, unless it has its own; ``at`` is from when it looks.
    """

    op: Literal["bundle"]
    bundle: Base64
    anchors: Base64
    policy: str | None
    collateral: Base64 | None
    publishers: Base64 | None
    at: Time | None


class Watch(Document):
    """A monitor looks at a log, whose ``files`` (C2SP tlog-tiles, by their paths) are all that it is shown.

    It believes heads that are signed by ``key``, a verifier key of C2SP signed-note, whose name is the log's origin.
    The log has to go on from what was seen of it in earlier steps of the case.
    """

    op: Literal["watch"]
    at: Time
    key: str
    files: tuple[File, ...]


class Read(Document):
    """A document of an operator's is read: whatever is wrong in it is refused, not repaired."""

    op: Literal["read"]
    kind: Literal["requirements", "reference", "anchors"]
    document: Base64


Step = Annotated[
    Start
    | Put
    | Refresh
    | Pool
    | Clear
    | Open
    | Prove
    | Window
    | Resume
    | Close
    | Token
    | Terms
    | Nras
    | EventLog
    | GpuReport
    | Bundle
    | Watch
    | Read,
    Field(discriminator="op"),
]


class Said(Document):
    """What a verifier says of one step.

    ``codes``: all that it has to say against it, each once, the first one decisive; none where nothing is refused.
    ``exit``: the exit status of the command that says so (README). ``window``: the number of the window that was
    judged. ``device``: the identity of the GPU that the first code is about.
    """

    outcome: Outcome
    codes: tuple[str, ...]
    exit: int
    window: int | None
    device: Hex | None


class Expected(Document):
    """What has to be said of each step of a case; the last one is what the case is about."""

    id: str
    said: tuple[Said, ...]


class Case(Document):
    """What a driver is given: one line of JSON. It takes the steps one after the other, whatever comes of each."""

    schema_: Annotated[Literal["weighbridge/conformance-case/v1"], Field(alias="schema")]
    id: str
    requires: tuple[str, ...]
    steps: tuple[Step, ...]


class Answered(Document):
    """What a driver answers: one line of JSON, with what it said of each step, or of which capabilities it has none."""

    schema_: Annotated[Literal["weighbridge/conformance-answer/v1"], Field(alias="schema")]
    id: str
    said: tuple[Said, ...] = ()
    unsupported: tuple[str, ...] = ()


def said(result: Result) -> Said:
    """``result`` as it is written."""
    return Said(
        outcome=result.outcome,
        codes=tuple(code.value for code in result.codes),
        exit=result.exit.value,
        window=result.window,
        device=result.device,
    )
