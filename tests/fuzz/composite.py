"""The composite appraiser under mutation: windows, enrolments and bundles that honest and dishonest hosts have made.

Each is taken where the verifier took it, with all that it was judged by. What is mutated is decided by the fuzzer's
bytes (:mod:`fuzz.mutate`), and what has to hold is one sentence: **whatever is admitted says what was said before,
and differs from it in nothing but the published list of unsigned bytes** (``docs/protocol.md`` §14). So no mutation
turns a refusal into an admission, and an admission survives only mutations of that list.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import eq
from typing import TYPE_CHECKING, Any, Final

from fuzz.mutate import Choices, Tree
from fuzz.recording import Recorder
from fuzz.target import Broken, Target
from fuzz.unsigned import bundle_signed, enrolment_signed, framed, window_signed, without_its_end
from support.forge import resealed
from weighbridge.proto.enrolment import EnrolmentProof
from weighbridge.proto.errors import Code, PolicyDenied, WeighbridgeError
from weighbridge.proto.window import Evidence
from weighbridge.verifier import bundle as bundles
from weighbridge.verifier.bundle import Bundle
from weighbridge.verifier.enrolment import verify_proof
from weighbridge.verifier.procedure import authenticate, verify_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from corpus.arena import Arena
    from fuzz.specs import Workshop

__all__ = ["Base", "Composite", "composites", "targets"]

WINDOW_CASES: Final = (
    "honest/001-first-window",
    "honest/003-report-not-due",
    "honest/005-fresh-after-held",
    "boot/001-known-host",
    "spot/002-answered-from-stored-digests",
    "adapters/001-declared-and-loaded",
)
ENROLMENT_CASES: Final = ("honest/012-enrolled", "boot/001-known-host", "extra/enrolled-with-two-models")
BUNDLE_CASES: Final = ("bundle/001-good", "bundle/019-closed")
REFUSED_CASES: Final = (
    "quote/004-quote-for-a-certification",
    "quote/024-reset-counted",
    "gpu/002-of-another-host",
    "freshness/025-quote-over-the-challenge",
    "freshness/030-gpu-over-the-window-digest",
    "chain/006-another-chain",
    "identity/003-serving-key-exchanged",
    "weights/002-extended-and-not-logged",
    "weights/013-record-edited-and-signed-so",
    "spot/004-not-answered",
)
"""Refused for what is signed: nothing that is put beside it makes it good."""
_WINDOW: Final = "verifier.procedure:verify_window"
_PROOF: Final = "verifier.enrolment:verify_proof"
_BUNDLE: Final = "verifier.bundle:verify"


@dataclass(frozen=True)
class Base:
    """Evidence, and the judgement on whatever stands in its place.

    Attributes:
        data: as it was sent.
        judge: everything that was proven of the bytes given; raises where they are refused.
        said: what was proven of ``data``; ``None`` where it was refused.
        forge: the bytes given with another header that the host's own key has signed; ``None`` where none is signed.
    """

    data: bytes
    judge: Callable[[bytes], object]
    said: object | None
    tree: Tree
    forge: Callable[[bytes, bytes], bytes] | None = None


class Composite:
    """One kind of evidence: the bases, and which of their bytes something signs."""

    def __init__(
        self,
        bases: Sequence[Base],
        signed: Callable[[bytes], object],
        *,
        no_more: Callable[[Any, Any], bool] = eq,
        part_of: Callable[[Any, Any], bool] = eq,
    ) -> None:
        self.bases: Final = tuple(bases)
        self._signed: Final = signed
        self._no_more: Final = no_more
        self._part_of: Final = part_of
        self._trees: Final = [base.tree for base in bases]

    def mutated(self, program: bytes) -> tuple[Base, bytes]:
        """The base that ``program`` chooses, and what it makes of it."""
        choices = Choices(program)
        base = self.bases[choices.below(len(self.bases))]
        data = base.tree.changed(choices, self._trees)
        if base.forge is not None and choices.below(4) == 1:
            data = _forged(base, choices) or data
        return base, data

    def check(self, program: bytes) -> bool:
        """Whether the mutation is admitted.

        Raises:
            Broken: it is, and says something else, or differs where it may not.
        """
        base, data = self.mutated(program)
        try:
            said = base.judge(data)
        except WeighbridgeError:
            if data == base.data and base.said is not None:
                raise Broken("honest evidence is refused") from None
            return False
        if base.said is None and not any(self._same(said, data, other) for other in self.bases):
            raise Broken("a mutation turned a refusal into an admission")
        if base.said is not None and not self._same(said, data, base):
            raise Broken("an admission survived a mutation of what is signed")
        return True

    def says_no_more(self, said: object, base: Base) -> bool:
        """Whether ``said`` is what was said of ``base``, or less."""
        return base.said is not None and self._no_more(said, base.said)

    def signed_by(self, data: bytes, base: Base) -> bool:
        """Whether ``data`` differs from ``base`` in nothing but what is unsigned."""
        return self._part_of(self._signed(data), self._signed(base.data))

    def _same(self, said: object, data: bytes, base: Base) -> bool:
        return self.says_no_more(said, base) and self.signed_by(data, base)


def composites(shop: Workshop, names: Iterable[str]) -> dict[str, Composite]:
    """Those of windows, enrolments and bundles that are named, of the cases above."""
    made: dict[str, Composite] = {}
    for name in names:
        match name:
            case "windows":
                cases = (*WINDOW_CASES, *REFUSED_CASES)
                bases = [_window(seen, arena) for case in cases for arena, seen in _seen(shop, case, _WINDOW)]
                made[name] = Composite(bases, window_signed)
            case "enrolments":
                bases = [_proof(seen) for case in ENROLMENT_CASES for _, seen in _seen(shop, case, _PROOF)]
                made[name] = Composite(bases, enrolment_signed, no_more=_explains_no_more)
            case _:
                bases = [_bundle(seen) for case in BUNDLE_CASES for _, seen in _seen(shop, case, _BUNDLE)]
                made[name] = Composite(bases, bundle_signed, no_more=_shows_no_more, part_of=without_its_end)
    return made


def targets(shop: Workshop, names: Iterable[str]) -> list[Target]:
    """As targets: the inputs are programs of mutations, and the first changes nothing."""
    programs = (b"", *(bytes([number]) * 24 for number in range(1, 64)))
    return [
        Target(name=name, run=made.check, seeds=programs, errors=()) for name, made in composites(shop, names).items()
    ]


def _seen(shop: Workshop, case: str, name: str) -> list[tuple[Arena, dict[str, Any]]]:
    recorder = Recorder((), (name,))
    arena = shop.watch(case, recorder)
    return [(arena, given) for given, _ in recorder.spied[name]]


def _window(seen: dict[str, Any], arena: Arena) -> Base:
    kept = {name: seen[name] for name in ("enrolled", "position", "held", "spot", "anchors", "at")}
    enrolled = kept["enrolled"]
    (host,) = (host for host in arena.hosts if host.terms is not None and host.terms.terms == enrolled.terms)

    def judge(data: bytes) -> object:
        window = authenticate(data, enrolled=enrolled, peer=enrolled.terms.peer)
        verified = verify_window(window, **kept)
        return (
            verified.digest,
            verified.qualifying_data,
            verified.quote,
            None if verified.gpus is None else sorted(report.identity for report in verified.gpus),
            verified.telemetry,
            verified.log,
            verified.runtime,
            set(verified.manifests),
            verified.spot,
        )

    data = seen["window"].evidence.encode()
    return Base(data, judge, _said(judge, data), Tree(data), lambda data, header: resealed(data, header, host))


def _proof(seen: dict[str, Any]) -> Base:
    kept = {name: seen[name] for name in ("candidate", "secret", "challenge", "requirements", "anchors", "at")}

    def judge(data: bytes) -> object:
        verified = verify_proof(EnrolmentProof.parse(data), **kept)
        if verified.findings:
            # Proven, and denied by whoever appraises it.
            raise PolicyDenied(Code(verified.findings[0].code), verified.findings[0].message)
        return (
            verified.ak,
            verified.telemetry_key,
            verified.quote,
            sorted(report.identity for report in verified.gpus),
            verified.runtime,
            (verified.log.register, verified.log.models, verified.log.fresh, verified.log.refused),
            set(verified.manifests),
            verified.boot,
        )

    data = seen["proof"].encode()
    return Base(data, judge, _said(judge, data), Tree(data))


def _explains_no_more(said: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    """The same, and of the boot no more: logs that are left out or damaged explain fewer registers."""
    (*rest, boot), (*rest_before, boot_before) = said, before
    if boot is None or boot_before is None:
        return rest == rest_before and boot == boot_before
    return rest == rest_before and (
        boot.bank == boot_before.bank
        and set(boot.explained) <= set(boot_before.explained)
        and set(boot.kernel_images) <= set(boot_before.kernel_images)
        and boot.before_kernel.items() <= boot_before.before_kernel.items()
        and boot.secure_boot in {None, boot_before.secure_boot}
    )


def _bundle(seen: dict[str, Any]) -> Base:
    kept = {name: seen[name] for name in ("anchors", "appraiser", "at")}

    def judge(data: bytes) -> object:
        result = bundles.verify(Bundle.parse(framed(data)), **kept)
        if not result.admitted:
            # A mutation that makes it denied or undecided has turned nothing into an admission.
            raise PolicyDenied(Code.BUNDLE_VERDICT, "the bundle is not admitted")
        return (
            [verdict.encode() for verdict in result.verdicts],
            result.closed,
            result.cosigned,
            result.terms,
            [report.identity for report in result.gpus],
            (result.origin, result.size),
        )

    # What is mutated is what the frame unpacks to: a frame that is damaged is a parser's matter.
    data = seen["bundle"].content()
    return Base(data, judge, _said(judge, data), Tree(data))


def _shows_no_more(said: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    """The same, and no more windows, closing and witnesses: the end and a line of the checkpoint can be left out."""
    (verdicts, closed, cosigned, *rest), (verdicts_before, closed_before, cosigned_before, *rest_before) = said, before
    return (
        verdicts == verdicts_before[: len(verdicts)]
        and closed <= closed_before
        and set(cosigned) <= set(cosigned_before)
        and rest == rest_before
    )


def _said(judge: Callable[[bytes], object], data: bytes) -> object | None:
    try:
        return judge(data)
    except WeighbridgeError:
        return None


def _forged(base: Base, choices: Choices) -> bytes | None:
    """Another header under a good signature: the telemetry key signs whatever its host wants."""
    assert base.forge is not None
    header = Tree(Evidence.parse(base.data).signed_header().payload).changed(choices, ())
    try:
        return base.forge(base.data, header)
    except WeighbridgeError:
        return None
