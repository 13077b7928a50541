"""The serialisations of a result, and the one table of what each calls every claim.

Two profiles of EAT Attestation Results are spoken, and never both in one token: draft-ietf-rats-ear-04, as JSON in a
JWT and as CBOR in a CWT, and what Veraison's libraries read since 2023, as JSON in a JWT. Each has a ``typ`` of its
own, so that a token of one cannot be taken for one of the other.

Sources: draft-ietf-rats-ear-04 §3; RFC 8392 §4, RFC 9711 §4 and §7 (CWT keys); RFC 8747 §3.1 (``cnf``);
draft-ietf-rats-ar4si-10 §2.3; github.com/veraison/ear (dotted names).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["EAR_PROFILE", "PROFILES", "TIERS", "VECTOR", "VERAISON_PROFILE", "Key", "Profile", "Serialisation"]

EAR_PROFILE: Final = "tag:ietf.org,2026:rats/ear#04"
VERAISON_PROFILE: Final = "tag:github.com,2023:veraison/ear"

Key = int | str


class Serialisation(StrEnum):
    """How a result is written down. Relying parties ask for one by this word."""

    EAR_04 = "ear-04"
    EAR_04_CWT = "ear-04-cwt"
    VERAISON_2023 = "veraison-2023"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One serialisation: what is constant in it, and what it calls each claim.

    Attributes:
        serialisation: its word.
        uri: the one value of ``eat_profile``.
        typ: of the signed header.
        media_type: of the whole, for whoever carries it.
        binary: CBOR and bytes; else JSON, with base64url or hexadecimal text.
        keys: by our own name of a claim. A claim that is not among them is not said.
    """

    serialisation: Serialisation
    uri: str
    typ: str
    media_type: str
    binary: bool
    keys: Mapping[str, Key]


# Our name: that of ear-04 in JSON, its key in CBOR, that of veraison-2023. Names have a dot before what is nested.
_TABLE: Final[Mapping[str, tuple[Key | None, Key | None, Key | None]]] = {
    "profile": ("eat_profile", 265, "eat_profile"),
    "issuer": ("iss", 1, "iss"),
    "audience": ("aud", 3, "aud"),
    "issued": ("iat", 6, "iat"),
    "expires": ("exp", 4, "exp"),
    "identifier": ("jti", 7, "jti"),
    "cnf": ("cnf", 8, "cnf"),
    "cnf.kid": ("kid", 3, "kid"),
    # CBOR has no registered name for either: RFC 9679's thumbprint is another one.
    "cnf.jkt": ("jkt", None, "jkt"),
    "cnf.x5t": ("x5t#S256", None, "x5t#S256"),
    "verifier": ("ear_verifier_id", 1004, "ear.verifier-id"),
    "verifier.developer": ("developer", 0, "developer"),
    "verifier.build": ("build", 1, "build"),
    "status": ("ear_status", 1000, None),
    "submods": ("submods", 266, "submods"),
    "submod.status": ("ear_status", 1000, "ear.status"),
    "submod.nonce": ("eat_nonce", 10, None),
    "submod.vector": ("ear_trustworthiness_vector", 1001, "ear.trustworthiness-vector"),
    # One text in veraison-2023, an array of them since.
    "submod.policy": (None, None, "ear.appraisal-policy-id"),
    "submod.policies": ("ear_appraisal_policy_ids", 1003, None),
    # The draft gives its last claim no number yet: a private one.
    "submod.claims": ("ear_verifier_claims", -70210, "ear.veraison.policy-claims"),
    # Not all readers of veraison-2023 pass over what they do not know in a submodule: all of ours is in the slot that
    # they do know.
    "claims.nonce": (None, None, "eat_nonce"),
    "claims.session": ("session", 0, "session"),
    "claims.tenant": ("tenant", 1, "tenant"),
    "claims.seq": ("seq", 2, "seq"),
    "claims.model": ("model", 3, "model"),
    "claims.adapters": ("adapters", 4, "adapters"),
    "claims.reference": ("reference", 5, "reference"),
    "claims.unchecked": ("unchecked", 6, "unchecked"),
    "claims.log": ("log", 7, "log"),
    "log.origin": ("origin", 0, "origin"),
    "log.index": ("index", 1, "index"),
    "log.leaf": ("leaf", 2, "leaf"),
}

TIERS: Final[Mapping[str, int]] = {"none": 0, "affirming": 2, "warning": 32, "contraindicated": 96}
"""Statuses as CBOR has them; JSON has the words (draft-ietf-rats-ar4si-10 §2.3.2)."""

VECTOR: Final[Mapping[str, int]] = {
    name: key
    for key, name in enumerate(
        (
            "instance-identity",
            "configuration",
            "executables",
            "file-system",
            "hardware",
            "runtime-opaque",
            "storage-opaque",
            "sourced-data",
        )
    )
}
"""The claims of a trustworthiness vector: as JSON has them, and as CBOR does."""


def _keys(column: int) -> Mapping[str, Key]:
    return {name: key for name, row in _TABLE.items() if (key := row[column]) is not None}


PROFILES: Final[Mapping[Serialisation, Profile]] = {
    profile.serialisation: profile
    for profile in (
        Profile(
            serialisation=Serialisation.EAR_04,
            uri=EAR_PROFILE,
            typ="eat+jwt",
            media_type=f'application/eat+jwt; eat_profile="{EAR_PROFILE}"',
            binary=False,
            keys=_keys(0),
        ),
        Profile(
            serialisation=Serialisation.EAR_04_CWT,
            uri=EAR_PROFILE,
            typ="application/eat+cwt",
            media_type=f'application/eat+cwt; eat_profile="{EAR_PROFILE}"',
            binary=True,
            keys=_keys(1),
        ),
        Profile(
            serialisation=Serialisation.VERAISON_2023,
            uri=VERAISON_PROFILE,
            # What Veraison's own libraries write.
            typ="JWT",
            media_type=f'application/eat+jwt; eat_profile="{VERAISON_PROFILE}"',
            binary=False,
            keys=_keys(2),
        ),
    )
}
