"""Golden inputs: a document as it was, the reference values, and what is to come of it.

``weighbridge policy eval --record`` and ``policy init`` write them, ``policy test`` compares. Schema
``weighbridge/policy-golden/v1``; every member but ``title``, ``at`` and ``author`` is required::

    {
      "schema": "weighbridge/policy-golden/v1",
      "title": "a GPU whose certificate is revoked",
      "input": {…},                                  the total document, as policies read it
      "reference": {…},                              as relying parties write it, or as it was in force
      "at": "2026-11-22T12:00:00Z",                  another time of receipt than the document's
      "author": {"tenant": "acme"},                  members of data.author, instead of what data.json says of them
      "expect": {
        "outcome": "deny",
        "denials": ["GPU_REVOKED", {"code": "UNPROVEN", "device": null}],
        "warn": [], "unchecked": [], "obligations": []
      }
    }

``denials`` are all that may come, in any order: by their code, which may come several times, or by code and device.
``warn`` (codes), ``unchecked`` (checks) and ``obligations`` (kinds) are compared where they are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self, get_args

from weighbridge.policy.document import PolicyInput, instant
from weighbridge.policy.engine import Decision, Denial, Outcome
from weighbridge.policy.policy_set import AuthorData
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from weighbridge.policy.policy_set import PolicySet

__all__ = ["EXTRAS", "SCHEMA", "Expectation", "ExpectedDenial", "Golden", "at_time", "with_author"]

SCHEMA: Final = "weighbridge/policy-golden/v1"
_OUTCOMES: Final[Mapping[str, Outcome]] = {word: word for word in get_args(Outcome)}
_LISTED_MAX: Final = 4096
_SHORT: Final = 17

_EXTRAS: Final[Mapping[str, Callable[[Decision], Iterable[str]]]] = {
    "warn": lambda decision: (item.code for item in decision.warnings),
    "unchecked": lambda decision: (item.check for item in decision.unchecked),
    "obligations": lambda decision: (item.kind for item in decision.obligations),
}
EXTRAS: Final = tuple(_EXTRAS)
"""What of a decision may be expected beside outcome and denials, each by the names of its elements."""


@dataclass(frozen=True, slots=True)
class ExpectedDenial:
    """A denial by its code; of one device (``None``: of none) unless ``any_device``."""

    code: str
    device: str | None = None
    any_device: bool = True

    def covers(self, denial: Denial) -> bool:
        """Whether ``denial`` is one that is expected by this."""
        return denial.code == self.code and (self.any_device or denial.device == self.device)

    def document(self) -> strict.JsonValue:
        """As it is written."""
        return self.code if self.any_device else {"code": self.code, "device": self.device}


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a policy is to say of a document. Of ``extras`` (:data:`EXTRAS`) only what is there is compared."""

    outcome: Outcome
    denials: tuple[ExpectedDenial, ...]
    extras: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, decision: Decision) -> Self:
        """That everything stays as it is in ``decision``."""
        denials = {(denial.code, denial.device) for denial in decision.denials}
        return cls(
            decision.outcome,
            tuple(
                ExpectedDenial(code, device, any_device=device is None) for code, device in sorted(denials, key=repr)
            ),
            {name: tuple(sorted(set(names(decision)))) for name, names in _EXTRAS.items()},
        )

    def differences(self, decision: Decision) -> tuple[str, ...]:
        """What is not as expected, in lines that people read; ``-`` is missing and ``+`` is new."""
        lines: list[str] = []
        if decision.outcome != self.outcome:
            lines.append(f"expected {self.outcome}, got {decision.outcome}")
        lines += [
            f"- deny {_device(expected.code, expected.device)}"
            for expected in self.denials
            if not any(expected.covers(denial) for denial in decision.denials)
        ]
        lines += [
            f"+ deny {_device(denial.code, denial.device)}: {denial.message}"
            for denial in decision.denials
            if not any(expected.covers(denial) for expected in self.denials)
        ]
        for name, expected_names in self.extras.items():
            found = set(_EXTRAS[name](decision))
            lines += [f"- {name} {item}" for item in sorted(set(expected_names) - found)]
            lines += [f"+ {name} {item}" for item in sorted(found - set(expected_names))]
        return tuple(lines)

    def document(self) -> strict.JsonObject:
        """As it is written."""
        return {
            "outcome": self.outcome,
            "denials": [denial.document() for denial in self.denials],
            **{name: list(names) for name, names in self.extras.items()},
        }


@dataclass(frozen=True, slots=True)
class Golden:
    """A golden input, parsed. Says nothing of where its document comes from: an author may have made it up."""

    title: str
    input: PolicyInput
    reference: Reference
    expect: Expectation
    author: strict.JsonObject = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Golden:
        """Read a file; the document is then of the time ``at``, where that is there.

        Raises:
            MalformedEvidence: the bytes are not strict JSON of exactly this shape (``NOT_JSON``, ``FIELD_MISSING``,
                ``FIELD_UNKNOWN``, ``FIELD_TYPE``, ``FIELD_RANGE``, ``VERSION_UNSUPPORTED``, …).
        """
        root = _object(strict.json_decode(data, what="golden"), "golden")
        if root.get("schema") != SCHEMA:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED,
                "the golden input has another schema",
                where="golden.schema",
                expected=SCHEMA,
                got=shorten(root.get("schema")),
            )
        _members(root, {"schema", "input", "reference", "expect"}, {"title", "at", "author"}, "golden")
        document = PolicyInput.parse(strict.json_encode(root["input"]))
        moment = root.get("at")
        if moment is not None:
            document = at_time(document, strict.time_decode(_text(moment, "golden.at"), what="golden.at"))
        title = root.get("title")
        return cls(
            "" if title is None else _text(title, "golden.title"),
            document,
            Reference.recorded(strict.json_encode(root["reference"])),
            _expectation(root["expect"]),
            _object(root.get("author", {}), "golden.author"),
        )

    def policy(self, policy: PolicySet) -> PolicySet:
        """``policy`` with the reference values of this, and what this says of the author's data.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: the data are too large together.
        """
        return with_author(replace(policy, reference=self.reference), self.author)

    def to_json(self) -> bytes:
        """The file, to be read and changed by people; ``parse`` of it gives an equal value."""
        return (
            strict.json_encode(
                {
                    "schema": SCHEMA,
                    **({"title": self.title} if self.title else {}),
                    **({"author": self.author} if self.author else {}),
                    "expect": self.expect.document(),
                    "reference": strict.json_decode(self.reference.to_json(), what="reference"),
                    "input": strict.json_decode(self.input.to_json(), what="input"),
                },
                indent=2,
            )
            + b"\n"
        )


def with_author(policy: PolicySet, author: strict.JsonObject) -> PolicySet:
    """``policy`` with the members of ``author`` in the place of those of its own data.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: the data are too large together.
    """
    if not author:
        return policy
    own = {} if policy.data is None else policy.data.content()
    return replace(policy, data=AuthorData(strict.json_encode({**own, **author})))


def at_time(document: PolicyInput, moment: datetime) -> PolicyInput:
    """``document`` as if it had been received at ``moment``, which is aware."""
    at, ns = instant(moment)
    return replace(document, received_at=at, received_ns=ns)


def _expectation(value: strict.JsonValue) -> Expectation:
    where = "golden.expect"
    fields = _object(value, where)
    _members(fields, {"outcome", "denials"}, set(EXTRAS), where)
    outcome = _OUTCOMES.get(str(fields["outcome"]))
    if outcome is None:
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "there is no such outcome",
            where=f"{where}.outcome",
            expected=", ".join(_OUTCOMES),
            got=shorten(fields["outcome"]),
        )
    denials = tuple(_denial(item, place) for item, place in _listed(fields["denials"], f"{where}.denials"))
    if (outcome == "allow") != (not denials):
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "outcome and denials contradict each other: only allow has none",
            where=f"{where}.denials",
            hint="name the codes that are expected",
        )
    extras = {
        name: tuple(_text(item, place) for item, place in _listed(fields[name], f"{where}.{name}"))
        for name in EXTRAS
        if name in fields
    }
    return Expectation(outcome, denials, extras)


def _denial(value: strict.JsonValue, where: str) -> ExpectedDenial:
    if isinstance(value, str):
        return ExpectedDenial(_text(value, where))
    fields = _object(value, where)
    _members(fields, {"code", "device"}, set(), where)
    device = fields["device"]
    return ExpectedDenial(
        _text(fields["code"], f"{where}.code"),
        None if device is None else _text(device, f"{where}.device"),
        any_device=False,
    )


def _device(code: str, device: str | None) -> str:
    return code if device is None else f"{code} of {device[:16]}…" if len(device) > _SHORT else f"{code} of {device}"


def _object(value: strict.JsonValue, where: str) -> strict.JsonObject:
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "expected an object", where=where)
    return value


def _members(value: strict.JsonObject, required: set[str], optional: set[str], where: str) -> None:
    for name in sorted(required - value.keys()):
        raise MalformedEvidence(Code.FIELD_MISSING, f"{name} is missing", where=where)
    for name in sorted(value.keys() - required - optional):
        raise MalformedEvidence(Code.FIELD_UNKNOWN, f"{name[:64]} is not a member", where=where)


def _listed(value: strict.JsonValue, where: str) -> list[tuple[strict.JsonValue, str]]:
    if not isinstance(value, list):
        raise MalformedEvidence(Code.FIELD_TYPE, "expected a list", where=where)
    if len(value) > _LISTED_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, "the list is too long", where=where, expected=f"<= {_LISTED_MAX}")
    return [(item, f"{where}[{index}]") for index, item in enumerate(value)]


def _text(value: strict.JsonValue, where: str) -> str:
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "expected text", where=where)
    if not 0 < len(value) <= limits.NAME_MAX or not value.isprintable():
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "not one line of printable text",
            where=where,
            expected=f"1 to {limits.NAME_MAX} characters",
        )
    return value
