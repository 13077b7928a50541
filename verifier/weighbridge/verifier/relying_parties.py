"""Who may ask how sessions stand: relying parties, by TLS key or by bearer token, and what each may ask for.

A JSON document, schema ``weighbridge/relying-parties/v1``. Whoever is not listed is refused; there is no word for
"all". A key is in one role only: what is listed here may not attest (:mod:`.peers`). Of a token only the hash is
listed: the list is no secret. A token is drawn at random (:func:`new_token`), so one hash is enough: it cannot be
guessed, and needs no salt and no slow hash.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, PolicyDenied
from weighbridge.verifier.documents import Audience, Document, Tenant, read_document

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["SCHEMA", "BearerToken", "RelyingParties", "RelyingParty", "new_token", "token_digest"]

SCHEMA: Final = "weighbridge/relying-parties/v1"
_PARTIES_MAX: Final = 4096
_EACH_MAX: Final = 1024
_TOKENS_MAX: Final = 8
_PREFIX: Final = "wbrp_"
_TOKEN_BYTES: Final = 32
_TOKEN: Final = re.compile(r"wbrp_[A-Za-z0-9_-]{43}")

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BearerToken(Document):
    """A token of a relying party: SHA-256 of its text, in hexadecimal, and until when it is taken (UTC)."""

    token_sha256: _Digest
    not_after: Annotated[str, Field(max_length=40)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            strict.time_decode(self.not_after, what="not_after")
        except MalformedEvidence as error:
            raise ValueError(error.message) from error
        return self

    @property
    def until(self) -> datetime:
        """``not_after``, aware."""
        return strict.time_decode(self.not_after, what="not_after")


class RelyingParty(Document):
    """One relying party. ``key`` is SHA-256 of its SubjectPublicKeyInfo, in hexadecimal; or it has ``tokens``, or both.

    It may read the standings of sessions of ``tenants``, and ask for tokens for ``audiences``; the first of them where
    it names none.
    """

    name: Annotated[str, Field(min_length=1, max_length=256)]
    key: _Digest | None = None
    tokens: Annotated[tuple[BearerToken, ...], Field(max_length=_TOKENS_MAX)] = ()
    tenants: Annotated[tuple[Tenant, ...], Field(min_length=1, max_length=_EACH_MAX)]
    audiences: Annotated[tuple[Audience, ...], Field(min_length=1, max_length=_EACH_MAX)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, listed in (("tenants", self.tenants), ("audiences", self.audiences)):
            if len(set(listed)) != len(listed):
                raise ValueError(f"{name} must be distinct")
        if self.key is None and not self.tokens:
            raise ValueError("neither a key nor a token: nobody could be this relying party")
        return self

    def audience(self, wanted: str | None) -> str:
        """The audience of its tokens: ``wanted``, or the first that it may ask for.

        Raises:
            PolicyDenied: ``RESULT_AUDIENCE``.
        """
        if wanted is None:
            return self.audiences[0]
        if wanted not in self.audiences:
            raise PolicyDenied(
                Code.RESULT_AUDIENCE,
                "this relying party may not ask for tokens for this audience",
                where="request.audience",
                expected=", ".join(self.audiences),
                got=wanted,
                hint="the verifier's operator lists what it may ask for: weighbridge serve --relying-parties",
            )
        return wanted


class RelyingParties(Document):
    """All relying parties of a verifier, each with a name, and with a key and tokens of its own."""

    schema_: Annotated[Literal["weighbridge/relying-parties/v1"], Field(alias="schema")] = SCHEMA
    relying_parties: Annotated[tuple[RelyingParty, ...], Field(max_length=_PARTIES_MAX)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        parties = self.relying_parties
        for what, listed in (
            ("name", [party.name for party in parties]),
            ("key", [party.key for party in parties if party.key is not None]),
            ("token", [token.token_sha256 for party in parties for token in party.tokens]),
        ):
            if len(set(listed)) != len(listed):
                raise ValueError(f"two relying parties have the same {what}")
        return self

    @classmethod
    def none(cls) -> Self:
        """Nobody: what a verifier without a list answers by."""
        return cls(relying_parties=())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the document.

        Raises:
            MalformedEvidence: ``FIELD_RANGE`` with the place, ``FIELD_MISSING`` without a schema, or a JSON code.
        """
        return read_document(cls, data, what="relying parties", schema=SCHEMA)

    def encode(self) -> bytes:
        """The document, canonical: ``parse`` of it gives an equal value."""
        return strict.json_encode(
            self.model_dump(by_alias=True, mode="json", exclude_defaults=True) | {"schema": SCHEMA}
        )

    def current(self) -> Self:
        """Itself: a list that does not change."""
        return self

    def keys(self) -> frozenset[bytes]:
        """The keys of all of them that have one, 32 bytes each."""
        listed = (party.key for party in self.relying_parties)
        return frozenset(strict.hex_decode(key, what="key") for key in listed if key is not None)

    def party(self, key: bytes) -> RelyingParty:
        """The one with this key.

        Raises:
            NotAuthentic: ``RELYING_PARTY_UNKNOWN``.
        """
        found = next((party for party in self.relying_parties if party.key == key.hex()), None)
        if found is None:
            raise NotAuthentic(
                Code.RELYING_PARTY_UNKNOWN,
                "this key is not that of a relying party of this verifier",
                where="channel",
                got=key.hex(),
                hint="the verifier's operator lists it: weighbridge serve --relying-parties",
            )
        return found


def new_token() -> str:
    """A new bearer token: 256 bits, drawn at random; a secret."""
    return _PREFIX + strict.base64url_encode(secrets.token_bytes(_TOKEN_BYTES))


def token_digest(token: str) -> bytes:
    """SHA-256 of a bearer token's text: what is listed of it.

    Raises:
        NotAuthentic: ``RELYING_PARTY_UNKNOWN``: it has not the form of one.
    """
    if not _TOKEN.fullmatch(token):
        raise NotAuthentic(
            Code.RELYING_PARTY_UNKNOWN,
            "not a bearer token of this verifier",
            where="authorization",
            hint="the verifier's operator makes them: weighbridge relying-party token",
        )
    return sha256(token.encode())
