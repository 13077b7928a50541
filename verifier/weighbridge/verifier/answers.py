"""What the verifier answers with, and whom it asks by what to judge. See :mod:`.core`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto.terms import SignedTerms, Terms
    from weighbridge.verifier.appraisal import Appraiser, Verdict

__all__ = ["Answer", "Opened", "Renewal", "Resumed"]


@dataclass(frozen=True, slots=True)
class Opened:
    """Enrolment succeeded. ``spot`` is the spot challenge that goes with ``challenge``, if one does."""

    terms: SignedTerms
    challenge: bytes
    spot: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where the verifier's record of a session stands, and its terms. ``spot`` as in :class:`Opened`."""

    next_seq: int
    challenge: bytes
    spot: bytes | None = field(repr=False)
    terms: Terms = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on one window, after it was recorded. ``challenge`` is ``None`` once the session has failed.

    ``spot`` as in :class:`Opened`.
    """

    verdict: Verdict
    token: str | None
    challenge: bytes | None
    index: int
    spot: bytes | None = field(repr=False)


class Renewal(Protocol):
    """Where changed reference values come from."""

    def renew(self, at: datetime) -> Appraiser | None:
        """The appraiser to judge by from now on; ``None`` where nothing has changed. Cheap then.

        Raises:
            EnvironmentFault: something has changed and this machine cannot make use of it: nothing is judged meanwhile.
        """
        ...
