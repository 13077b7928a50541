"""Which permanent identifiers a proof bundle gives away: what tells a device from all others, as long as it lives.

They are read out of what the bundle shows and are not verified: whoever hands a file on wants to know what is in it.
What a device cannot be found by is not listed: keys of one session, the digests of its models, measurements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from weighbridge.policy.values.reference import Reference
from weighbridge.proto import cbor, strict
from weighbridge.proto.baseline import SignedBaselineSet
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

    After those of the session come those that it needs besides, of others perhaps: a signed set says what it says of
    all its devices, and reference values name all the models that were accepted.

    Raises:
        MalformedEvidence: the record of the enrolment, its terms, values or sets are not well-formed.
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
        found += _of_others(bundle, {*terms.gpus, terms.model, *terms.adapters})
    return tuple(found)


def _of_others(bundle: Bundle, own: set[bytes]) -> list[Identifier]:
    """Devices and models of which the bundle says something though the session has them not, each once."""
    devices = {
        profile.device
        for data in bundle.baselines
        for profile in SignedBaselineSet.parse(data).claimed.profiles
        if profile.device is not None
    }
    models: set[bytes] = set()
    for data in bundle.references:
        values = Reference.recorded(data)
        named = {*values.models, *(model.manifest for item in values.sets for model in item.models)}
        models |= {strict.hex_decode(digest, what="reference.models") for digest in named}
    return [
        *(Identifier("another device", identity) for identity in sorted(devices - own)),
        *(Identifier("another model", digest) for digest in sorted(models - own)),
    ]
