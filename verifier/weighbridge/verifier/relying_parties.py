"""Who may ask how sessions stand: relying parties, by the key of their TLS certificate, and what each may ask for.

A JSON document, schema ``weighbridge/relying-parties/v1``. Whoever is not listed is refused; there is no word for
"all". A key is in one role only: what is listed here may not attest (:mod:`.peers`).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, PolicyDenied

__all__ = ["SCHEMA", "RelyingParties", "RelyingParty"]

SCHEMA: Final = "weighbridge/relying-parties/v1"
_PARTIES_MAX: Final = 4096
_EACH_MAX: Final = 1024
# As in requirements and terms.
_Tenant = Annotated[str, Field(min_length=1, max_length=64)]
_Audience = Annotated[str, Field(min_length=1, max_length=256)]


class RelyingParty(BaseModel):
    """One relying party. ``key`` is SHA-256 of its SubjectPublicKeyInfo, in hexadecimal.

    It may read the standings of sessions of ``tenants``, and ask for tokens for ``audiences``; the first of them where
    it names none.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=256)]
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tenants: Annotated[tuple[_Tenant, ...], Field(min_length=1, max_length=_EACH_MAX)]
    audiences: Annotated[tuple[_Audience, ...], Field(min_length=1, max_length=_EACH_MAX)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, listed in (("tenants", self.tenants), ("audiences", self.audiences)):
            if len(set(listed)) != len(listed):
                raise ValueError(f"{name} must be distinct")
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


class RelyingParties(BaseModel):
    """All relying parties of a verifier, each with a name and a key of its own."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    schema_: Annotated[Literal["weighbridge/relying-parties/v1"], Field(alias="schema")] = SCHEMA
    relying_parties: Annotated[tuple[RelyingParty, ...], Field(max_length=_PARTIES_MAX)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what in ("name", "key"):
            listed = [getattr(party, what) for party in self.relying_parties]
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
        document = strict.json_decode(data, what="relying parties", limit=limits.REFERENCE_SET_MAX)
        if isinstance(document, dict) and "schema" not in document:
            raise MalformedEvidence(
                Code.FIELD_MISSING, "the document does not say what it is", where="schema", expected=SCHEMA
            )
        try:
            return cls.model_validate_json(strict.json_encode(document))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "relying parties"
            raise MalformedEvidence(Code.FIELD_RANGE, first["msg"], where=place) from error

    def encode(self) -> bytes:
        """The document, canonical: ``parse`` of it gives an equal value."""
        return strict.json_encode(self.model_dump(by_alias=True, mode="json"))

    def keys(self) -> frozenset[bytes]:
        """The keys of all of them, 32 bytes each."""
        return frozenset(strict.hex_decode(party.key, what="key") for party in self.relying_parties)

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
