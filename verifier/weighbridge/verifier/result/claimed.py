"""Claims as they were signed, each taken as the type that its profile gives it, or malformed."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from weighbridge.verifier.result.serialisation import Key, Profile

    Value: TypeAlias = bool | int | float | str | bytes | list["Value"] | dict["Key", "Value"] | None
    Tree: TypeAlias = dict["Key", Value]

__all__ = ["Claimed"]


@final
class Claimed:
    """One map of claims. ``name`` is our own name of a claim, as in the profile's table.

    Every method raises ``MalformedEvidence`` with ``TOKEN_MALFORMED`` for a claim that is missing or of another type,
    and a decoding code for text that does not decode.
    """

    __slots__ = ("_members", "_where", "profile")

    def __init__(self, value: object, profile: Profile, where: str) -> None:
        if not isinstance(value, dict):
            raise MalformedEvidence(Code.TOKEN_MALFORMED, "not an object", where=where)
        self._members: Mapping[Key, Value] = value
        self._where = where
        self.profile = profile

    def path(self, name: str) -> str:
        """Where a claim is, for messages."""
        return f"{self._where}.{self.profile.keys[name]}"

    def take(self, name: str) -> Value:
        """A claim of any type."""
        key = self.profile.keys[name]
        if key not in self._members:
            raise self._malformed(name, "a claim is missing")
        return self._members[key]

    def table(self, name: str) -> Claimed:
        """A nested map."""
        return Claimed(self.take(name), self.profile, self.path(name))

    def named(self, name: str) -> dict[str, Claimed]:
        """A map of maps, whose keys are text."""
        return {key: Claimed(value, self.profile, f"{self.path(name)}.{key}") for key, value in self._texts_of(name)}

    def texts_by_name(self, name: str) -> dict[str, str]:
        """A map of texts, whose keys are text."""
        return {key: self._text(value, name) for key, value in self._texts_of(name)}

    def numbers_by_key(self, name: str, *, low: int, high: int) -> dict[Key, int]:
        """A map of integers."""
        table = self.table(name)
        return {key: self._number(value, name, low, high) for key, value in table._members.items()}  # noqa: SLF001 - its own kind

    def text(self, name: str) -> str:
        """A text."""
        return self._text(self.take(name), name)

    def first(self, name: str) -> str:
        """The first of a list of texts, of which there is one at least."""
        texts = [self._text(item, name) for item in self._list(name)]
        if not texts:
            raise self._malformed(name, "an empty list")
        return texts[0]

    def number(self, name: str, *, high: int) -> int:
        """An integer from 0 to ``high``."""
        return self._number(self.take(name), name, 0, high)

    def octets(self, name: str) -> bytes:
        """32 bytes, as base64url where the profile is text."""
        return self._octets(self.take(name), name)

    def optional_octets(self, name: str) -> bytes | None:
        """The same, or nothing where the claim is not made or the profile has none such."""
        key = self.profile.keys.get(name)
        return None if key is None or key not in self._members else self.octets(name)

    def digest(self, name: str, *, size: int = limits.DIGEST_SIZE) -> bytes:
        """``size`` bytes, in hexadecimal where the profile is text."""
        return self._digest(self.take(name), name, size)

    def digests(self, name: str, *, count: int) -> tuple[bytes, ...]:
        """At most ``count`` digests."""
        values = self._list(name)
        if len(values) > count:
            raise self._malformed(name, f"more than {count}")
        return tuple(self._digest(value, name, limits.DIGEST_SIZE) for value in values)

    def _texts_of(self, name: str) -> list[tuple[str, Value]]:
        members = self.table(name)._members  # noqa: SLF001 - its own kind
        named = [(key, value) for key, value in members.items() if isinstance(key, str)]
        if len(named) != len(members):
            raise self._malformed(name, "a name is not a text")
        return named

    def _list(self, name: str) -> list[Value]:
        value = self.take(name)
        if not isinstance(value, list):
            raise self._malformed(name, "not a list")
        return value

    def _text(self, value: Value, name: str) -> str:
        if not isinstance(value, str):
            raise self._malformed(name, "not a text")
        return value

    def _number(self, value: Value, name: str, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._malformed(name, f"not a number from {low} to {high}")
        return value

    def _octets(self, value: Value, name: str) -> bytes:
        octets = self._raw(value, name) if self.profile.binary else self._decoded(value, name)
        return self._sized(octets, name, limits.DIGEST_SIZE)

    def _decoded(self, value: Value, name: str) -> bytes:
        return strict.base64url_decode(self._text(value, name), what=self.path(name))

    def _digest(self, value: Value, name: str, size: int) -> bytes:
        if self.profile.binary:
            return self._sized(self._raw(value, name), name, size)
        return strict.hex_decode(self._text(value, name), what=self.path(name), size=size)

    def _raw(self, value: Value, name: str) -> bytes:
        if not isinstance(value, bytes):
            raise self._malformed(name, "not a byte string")
        return value

    def _sized(self, octets: bytes, name: str, size: int) -> bytes:
        if len(octets) != size:
            raise MalformedEvidence(
                Code.TOKEN_MALFORMED, "wrong length", where=self.path(name), expected=size, got=len(octets)
            )
        return octets

    def _malformed(self, name: str, what: str) -> MalformedEvidence:
        return MalformedEvidence(Code.TOKEN_MALFORMED, what, where=self.path(name))
