"""A policy that was written for another verifier, as a file of a policy set.

Its place says everything: ``foreign/PROFILE/NAME.rego``, or ``foreign/PROFILE/v0/NAME.rego`` for one in the Rego of
before OPA 1.0, which nothing guesses. ``foreign/values.json`` answers ``query_reference_value``. So the policy's digest
covers what was asked and how, and a record or a signed bundle needs no field for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, Self, cast, get_args

from weighbridge.proto.errors import Code, PolicyDenied

__all__ = ["FOLDER", "PROFILES", "VALUES", "ForeignModule", "ProfileName"]

FOLDER: Final = "foreign/"
VALUES: Final = "foreign/values.json"
ProfileName = Literal["intel", "nvidia", "trustee-cpu", "trustee-gpu", "veraison"]
PROFILES: Final[tuple[ProfileName, ...]] = get_args(ProfileName)

_NAME: Final = re.compile(r"foreign/(?P<profile>[a-z-]+)/(?P<v0>v0/)?(?P<file>[A-Za-z0-9._-]{1,100}\.rego)")


@dataclass(frozen=True, slots=True)
class ForeignModule:
    """One such file. ``v0``: in the Rego of before OPA 1.0."""

    profile: ProfileName
    v0: bool
    file: str
    text: bytes

    @classmethod
    def of(cls, name: str, text: bytes) -> Self:
        """The module of the policy file ``name``.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: the name is no such module's.
        """
        found = _NAME.fullmatch(name)
        if found is None or found["profile"] not in PROFILES:
            raise PolicyDenied(
                Code.POLICY_INVALID,
                "no policy of another verifier is called so",
                where=name[:200],
                expected="foreign/PROFILE/NAME.rego or foreign/PROFILE/v0/NAME.rego, "
                f"PROFILE one of {', '.join(PROFILES)}",
            )
        return cls(cast("ProfileName", found["profile"]), found["v0"] is not None, found["file"], text)

    @classmethod
    def given(cls, profile: str, file: str, text: bytes, *, v0: bool) -> Self:
        """The module ``file`` for ``profile``.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: there is no such profile, or no module may be called so.
        """
        return cls.of(f"{FOLDER}{profile}/{'v0/' if v0 else ''}{file}", text)

    @property
    def name(self) -> str:
        """The file's name in a policy set."""
        return f"{FOLDER}{self.profile}/{'v0/' if self.v0 else ''}{self.file}"
