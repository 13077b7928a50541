"""Which permanent identifiers a proof bundle gives away: what tells a device from all others, as long as it lives.

They are read out of what the bundle shows and are not verified: whoever hands a file on wants to know what is in it.
What a device cannot be found by is not listed: keys of one session, digests of models, measurements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from weighbridge.proto import cbor
from weighbridge.proto.digest import sha256
from weighbridge.proto.endorsement import endorsement_to_cbor
from weighbridge.proto.enrolment import Opening
from weighbridge.verifier.record import Record
from weighbridge.verifier.redaction import terms_of

if TYPE_CHECKING:
    from weighbridge.verifier.bundle_format import Bundle

__all__ = ["Identifier", "identifiers"]


class Identifier(NamedTuple):
    """One identifier: of what, and the digest by which it is known."""

    what: str
    identity: bytes


def identifiers(bundle: Bundle) -> tuple[Identifier, ...]:
    """The permanent identifiers in ``bundle``; none in a redacted one.

    Raises:
        MalformedEvidence: the record of the enrolment, or its terms, are not well-formed.
    """
    found: list[Identifier] = []
    for entry in bundle.entries[:1]:
        record = Record.parse(entry.record)
        if record.kind != "enrolment":
            continue
        terms = terms_of(record)
        found += [Identifier("device", identity) for identity in terms.gpus]
        found += [Identifier("attestation key", terms.ak), Identifier("channel key", terms.peer)]
        if record.opening is not None and (endorsement := Opening.parse(record.opening).endorsement) is not None:
            found.append(Identifier("endorsement", sha256(cbor.encode(endorsement_to_cbor(endorsement)))))
    return tuple(found)
