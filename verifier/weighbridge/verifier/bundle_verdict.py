"""What a proof bundle shows: the verdict on each window, made again, and the checks behind it. See :mod:`.bundle`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.proto.errors import Code, Indeterminate, LedgerInconsistent
from weighbridge.proto.telemetry import Telemetry
from weighbridge.verifier.anchors import EMULATED_PLATFORM
from weighbridge.verifier.appraisal import not_proven

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto import strict
    from weighbridge.proto.terms import Terms
    from weighbridge.proto.window import Header
    from weighbridge.verifier.appraisal import Verdict
    from weighbridge.verifier.bundle_format import ShownRequest
    from weighbridge.verifier.check_tree import Check
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.tpm.ak import VerifiedAk

__all__ = ["BundleVerdict", "BundleWindow", "require_closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleWindow:
    """One window of a bundle.

    Attributes:
        seq: its number.
        index: of its entry in the ledger.
        received: when the verifier received it, by its own word.
        header: verified; ``None`` where the window is withheld, or its verification refused it.
        samples: the telemetry as it was sent, whose digest the header has; ``None`` likewise.
        verdict: made again; ``None`` where a window before it is withheld.
        recorded: the verdict's document as it was recorded, schema ``weighbridge/verdict/v1``.
        same: whether the recorded verdict is this one; ``None`` where they cannot be compared.
    """

    seq: int
    index: int
    received: datetime
    header: Header | None
    samples: bytes | None
    verdict: Verdict | None
    recorded: strict.JsonObject
    same: bool | None

    @property
    def telemetry(self) -> Telemetry | None:
        """The samples, unpacked each time: those of a long session do not fit into memory together."""
        return None if self.samples is None else Telemetry.parse(self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleVerdict:
    """What a bundle shows: the verdict on each window, made again.

    Attributes:
        terms: of the session.
        gpus: the reports of the enrolled devices, in the order of their identities.
        windows: those that are shown, in their order.
        origin: the ledger's name.
        size: the ledger's number of entries under the bundle's checkpoint.
        same_policy: whether each verdict could be compared with the recorded one, and is it.
        recorded_policy: whether every decision was made under the policy of the record.
        recorded_reference: whether every decision was made by the reference values of the record.
        ak: the attestation key that everything rests on, and why it is believed.
        withheld: how many judgements of the session are not shown.
        closed: whether a closing counts the windows: without one, whoever gave the file may have left out the last.
        requests: those that are shown, each counted by its window's header.
        cosigned: the names of the trusted witnesses that cosigned the checkpoint.
        checkpoint: its note, with the signature lines of the ledger and of these witnesses, and no stranger's.
        checks: what was checked.
    """

    terms: Terms
    gpus: tuple[VerifiedGpuReport, ...]
    windows: tuple[BundleWindow, ...]
    origin: str
    size: int
    same_policy: bool
    recorded_policy: bool
    recorded_reference: bool
    ak: VerifiedAk
    withheld: int
    closed: bool
    requests: tuple[ShownRequest, ...]
    cosigned: tuple[str, ...]
    checkpoint: str
    checks: tuple[Check, ...]

    @property
    def session(self) -> bytes:
        """Whose windows they are."""
        return self.terms.session

    @property
    def model(self) -> bytes:
        """Digest of the declared manifest."""
        return self.terms.model

    @property
    def adapters(self) -> tuple[bytes, ...]:
        """Digests of the manifests that were declared beside it, loaded or not."""
        return self.terms.adapters

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Those that were made now, in the order of the windows."""
        return tuple(window.verdict for window in self.windows if window.verdict is not None)

    @property
    def emulated(self) -> bool:
        """Whether any of it is emulated, so that nothing is shown of hardware."""
        return EMULATED_PLATFORM in {self.ak.platform, *(report.platform for report in self.gpus)}

    @property
    def unchecked(self) -> tuple[tuple[str, str], ...]:
        """The checks that policies left out, each with its reasons, ascending."""
        decisions = [verdict.decision for verdict in self.verdicts if verdict.decision is not None]
        return tuple(sorted({(item.check, item.reason) for decision in decisions for item in decision.unchecked}))

    @property
    def not_proven(self) -> tuple[str, ...]:
        """What none of the verdicts shows: of the measuring code, what not all of them show."""
        codes = [verdict.attester_code for verdict in self.verdicts]
        unproven = next((code for code in codes if code is None or code.status != "proven"), None)
        return not_proven(self.ak, codes[0] if codes and unproven is None else None)

    @property
    def admitted(self) -> bool:
        """Whether nothing is withheld, nothing was denied, and the last fresh window was affirmed.

        Windows before it may be indeterminate: until a unit of samples is full, and while sensors fail, no gate opens.
        Where the session is not closed, this is said of the windows that are there.
        """
        fresh = [verdict.outcome for verdict in self.verdicts if not verdict.held]
        return fresh[-1:] == ["affirmed"] and not self.denied and not self.withheld

    @property
    def denied(self) -> tuple[Verdict, ...]:
        """The verdicts that refuse."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome == "denied")

    @property
    def recorded_denied(self) -> bool:
        """Whether a window that is not judged again was recorded as denied."""
        return any(window.verdict is None and window.recorded["outcome"] == "denied" for window in self.windows)

    def require_recorded(self, *, policy: bool, reference: bool) -> None:
        """Require that what was taken out of the bundle to judge by is what the records name.

        Nothing else speaks for a bundle's policy and reference values: whoever wrote the file wrote them.

        Args:
            policy: whether the policy was the bundle's.
            reference: whether the reference values were.

        Raises:
            LedgerInconsistent: ``BUNDLE_VERDICT``.
        """
        for taken, same, message in (
            (policy, self.recorded_policy, "the bundle's policy is not the one that the records name"),
            (reference, self.recorded_reference, "the bundle's reference values are not those that the records name"),
        ):
            if taken and not same:
                raise LedgerInconsistent(
                    Code.BUNDLE_VERDICT,
                    message,
                    where="bundle",
                    hint="name your own: --policy and --reference",
                )


def require_closed(*, closed: bool) -> None:
    """Require that a closing counts the windows of a bundle, so that none can have been left out behind the last.

    Raises:
        Indeterminate: ``BUNDLE_UNCLOSED``.
    """
    if not closed:
        raise Indeterminate(
            Code.BUNDLE_UNCLOSED,
            "the session is not closed in the bundle: its last windows may have been left out",
            where="bundle.entries",
            hint="export it again once the session has ended; without --closed it is judged as far as it goes",
        )
