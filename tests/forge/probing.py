"""Before a case's honest bytes are judged: the same with one field changed, and none of these may be accepted.

Nothing comes of it: a window is judged and not recorded, and what an enrolment takes up is put back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forge.fields import changed, changed_token
from weighbridge.proto.enrolment import EnrolmentProof
from weighbridge.proto.errors import WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus.manifests import Manifest
    from weighbridge.verifier.core import Verifier


@dataclass
class Probe:
    """What has to be accepted in a case, and how many changes of it were refused.

    Attributes:
        manifest: of the case: the window that it is about is probed, or its enrolment, or its tokens.
        refused: the changes.
    """

    manifest: Manifest
    refused: list[str] = field(default_factory=list)

    def window(self, verifier: Verifier, session: bytes, data: bytes, peer: bytes) -> None:
        """A window is about to be judged."""
        if self.manifest.outcome != "affirmed":
            return
        try:
            live = verifier._sessions.find(session, peer=peer)
        except WeighbridgeError:
            return
        if live.position.seq != self.manifest.window:
            return
        for place, other in changed(self.manifest.id, data):
            try:
                verdict = verifier.judge(session, other, peer=peer).verdict
            except WeighbridgeError:
                pass
            else:
                assert verdict.outcome == "denied", f"{self.manifest.id}: {place} changed: {verdict.outcome}"
            self.refused.append(place)

    def proof(self, verifier: Verifier, data: bytes, peer: bytes) -> None:
        """An enrolment is about to be judged."""
        if self.manifest.outcome != "enrolled":
            return
        session = EnrolmentProof.parse(data).session
        pending = verifier._enroller._pending[session]
        for place, other in changed(self.manifest.id, data):
            try:
                verifier._enroller.prove(other, peer=peer, clock=verifier._clock)
            except WeighbridgeError:
                self.refused.append(place)
            else:
                raise AssertionError(f"{self.manifest.id}: {place} changed, and enrolled")
            verifier._enroller._pending[session] = pending

    def token(self, token: str, verify: Callable[[str], object]) -> None:
        """A token is about to be verified."""
        if self.manifest.outcome != "accepted":
            return
        for place, other in changed_token(self.manifest.id, token):
            try:
                verify(other)
            except WeighbridgeError:
                self.refused.append(place)
            else:
                raise AssertionError(f"{self.manifest.id}: {place} changed, and accepted")
