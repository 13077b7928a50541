"""Verifies a reference set: what a model's owner accepts and has revoked, and what others state about those models.

The procedure of :func:`authenticate` and :func:`verify_statements`:

1. The file is a well-formed set.
2. It is signed by the key of an anchor of purpose ``model-owner``, and that anchor's name is the owner's.
3. Each statement under a model is about that model: one of its subjects is the manifest's digest.
4. Each statement is signed by the key of an anchor of purpose ``statement-issuer``, which is believed at the time at
   which the owner signed the set. A key id is a hint and decides nothing (DSSE v1.0.2 protocol.md).

Validity is not compared with any time here: :attr:`AuthenticSet.not_before` and ``not_after`` say when the owner
vouches for the set *and* its key is believed, and every window is judged by them at its receipt time.

Left to the caller: that the set is not older than one seen before (``Transaction.owners``). Not proven: that
the owner's word is true, and anything that a statement says beyond its issuer, type and date.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from weighbridge.policy.values.owner_sets import ModelValue, OwnerSet, RevokedValue, StatementValue
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.reference_set import SignedSet
from weighbridge.proto.statement import Statement
from weighbridge.verifier.clock import moment
from weighbridge.verifier.owner_signature import Line, check_signature, validity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.proto.reference_set import AcceptedModel, ReferenceSet
    from weighbridge.verifier.anchors import Anchor, AnchorKey, TrustAnchors

__all__ = ["AuthenticSet", "VerifiedSet", "authenticate", "verify", "verify_statements"]

_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True)
class AuthenticSet:
    """A set that its owner has signed. Its statements are not verified. Made by :func:`authenticate`.

    Attributes:
        content: what the owner signed.
        digest: SHA-256 of the signed file, 32 bytes.
        not_before: from when on the owner vouches for it under a trusted key.
        not_after: until when, inclusive.
    """

    content: ReferenceSet
    digest: bytes
    not_before: datetime
    not_after: datetime
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("AuthenticSet is made by authenticate only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("AuthenticSet cannot be pickled")

    @property
    def line(self) -> Line:
        """What it replaces earlier sets of."""
        return Line("model-owner", self.content.owner)

    @property
    def number(self) -> int:
        """Its place in the line."""
        return self.content.number

    def revocations(self) -> OwnerSet:
        """Only what this set takes away: nobody needs to vouch further for that."""
        return _values(self, ())


@final
@dataclass(frozen=True, slots=True)
class VerifiedSet:
    """A set all of whose statements are verified too. Made by :func:`verify_statements`.

    The seal is a guard against mistakes, not against hostile code.
    """

    authentic: AuthenticSet
    models: tuple[ModelValue, ...]
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedSet is made by verify_statements only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedSet cannot be pickled")

    @property
    def values(self) -> OwnerSet:
        """What it says, for the reference values in force."""
        return _values(self.authentic, self.models)


def verify(data: bytes, *, anchors: TrustAnchors) -> VerifiedSet:
    """The whole procedure of the module's docstring.

    Args:
        data: the file, untrusted.
        anchors: whose keys are believed: ``model-owner`` and ``statement-issuer``.

    Raises:
        MalformedEvidence: the file, or a statement in it, is not well-formed.
        NotAuthentic: as :func:`authenticate` and :func:`verify_statements`.
    """
    return verify_statements(authenticate(data, anchors=anchors), anchors=anchors)


def authenticate(data: bytes, *, anchors: TrustAnchors) -> AuthenticSet:
    """Steps 1 and 2 of the procedure.

    Raises:
        MalformedEvidence: the file is not a well-formed set.
        NotAuthentic: ``CHAIN_UNTRUSTED`` when no anchor is the signer's, or one of another name; ``COSE_SIGNATURE``.
    """
    # 1.
    signed = SignedSet.parse(data)
    # 2.
    claimed = signed.claimed
    anchor = check_signature(signed.message, Line("model-owner", claimed.owner), anchors=anchors)
    not_before, not_after = validity(
        anchor,
        issued_ns=claimed.issued_ns,
        not_before_ns=claimed.not_before_ns,
        not_after_ns=claimed.not_after_ns,
    )
    return AuthenticSet(content=claimed, digest=signed.digest, not_before=not_before, not_after=not_after, seal=_SEAL)


def verify_statements(authentic: AuthenticSet, *, anchors: TrustAnchors) -> VerifiedSet:
    """Steps 3 and 4 of the procedure, for every statement.

    Raises:
        MalformedEvidence: a statement is not well-formed.
        NotAuthentic: ``STATEMENT_SUBJECT``, ``STATEMENT_UNTRUSTED``, ``CHAIN_EXPIRED``; ``where`` names model and
            statement.
    """
    content = authentic.content
    issued, issuers = moment(content.issued_ns), anchors.select("statement-issuer")
    models = tuple(
        ModelValue(model.manifest.hex(), model.name, _statements(model, issuers, issued)) for model in content.models
    )
    return VerifiedSet(authentic, models, _SEAL)


def _values(authentic: AuthenticSet, models: tuple[ModelValue, ...]) -> OwnerSet:
    content = authentic.content
    return OwnerSet(
        owner=content.owner,
        number=content.number,
        digest=authentic.digest.hex(),
        not_before=authentic.not_before,
        not_after=authentic.not_after,
        models=models,
        revoked=tuple(RevokedValue(item.manifest.hex(), item.reason, moment(item.at_ns)) for item in content.revoked),
    )


def _statements(model: AcceptedModel, issuers: Sequence[Anchor], issued: datetime) -> tuple[StatementValue, ...]:
    values: dict[bytes, StatementValue] = {}
    for number, data in enumerate(model.statements):
        where = f"{model.name}, statement {number}"
        statement = Statement.parse(data, where=where)
        # 3.
        if model.manifest.hex() not in statement.subjects:
            raise NotAuthentic(
                Code.STATEMENT_SUBJECT,
                f"the statement of type {statement.type} is not about this model",
                where=where,
                expected=model.manifest,
                got=", ".join(sorted(statement.subjects)) or "no digest",
            )
        # 4.
        issuer = _issuer(statement, issuers, where)
        issuer.check_validity(issued)
        date = None if statement.date is None else strict.time_encode(statement.date)
        values[statement.digest] = StatementValue(statement.digest.hex(), issuer.name, statement.type, date)
    return tuple(value for _, value in sorted(values.items()))


def _issuer(statement: Statement, issuers: Sequence[Anchor], where: str) -> Anchor:
    """The first issuer that has signed ``statement``; those that a key id names are asked first."""
    for signature in statement.signatures:
        hint = signature.claimed_keyid
        for anchor in sorted(issuers, key=lambda item: hint not in {item.name, item.sha256}):
            if _signed(anchor.key(), signature.signature, statement.signed):
                return anchor
    raise NotAuthentic(
        Code.STATEMENT_UNTRUSTED,
        f"no trusted issuer has signed the statement of type {statement.type}",
        where=where,
        expected=", ".join(anchor.name for anchor in issuers) or "an anchor of purpose statement-issuer",
        got=", ".join(signature.claimed_keyid or "no key id" for signature in statement.signatures),
        hint="if its issuer is to be believed, give the document with that key: --anchors",
    )


def _signed(key: AnchorKey, signature: bytes, signed: bytes) -> bool:
    """Whether ``signature`` over ``signed`` is by ``key``; the key fixes the algorithm."""
    try:
        match key:
            case ed25519.Ed25519PublicKey():
                key.verify(signature, signed)
            case ec.EllipticCurvePublicKey():
                algorithm = hashes.SHA256() if isinstance(key.curve, ec.SECP256R1) else hashes.SHA384()
                key.verify(signature, signed, ec.ECDSA(algorithm))
            case _:  # pragma: no cover - the table of accepted key types leaves nothing else for this purpose
                return False
    except InvalidSignature:
        return False
    return True
