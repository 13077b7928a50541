"""From the engine's answer to an outcome. Nothing that is not understood admits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from weighbridge.policy.claims import AR4SI_CLAIMS, not_better, trust_claims
from weighbridge.policy.document import PolicyInput
from weighbridge.policy.engine import Advice, Denial, Obligation, Outcome, TrustClaims, Unchecked
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence, shorten

__all__ = ["Output", "failure", "invariants", "read_answer"]

_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,63}")
_DENIAL: Final = frozenset({"code", "window", "device", "expected", "got", "hint"})
_DETAIL_MAX: Final = 1000
# Answers that are remembered, each of so many bytes at the most.
_REMEMBERED: Final = 128
_REMEMBERED_MAX: Final = 8192
# No token lives longer.
_REATTEST_MAX: Final = 120

_FAILURES: Final[dict[Outcome, tuple[Code, str]]] = {
    "undefined": (Code.POLICY_UNDEFINED, "the policy gives no answer"),
    "error": (Code.POLICY_ERROR, "the policy ends in an error"),
    "timeout": (Code.POLICY_TIMEOUT, "the policy takes too long"),
    "crashed": (Code.POLICY_CRASHED, "the policy engine died"),
    "disagree": (Code.POLICY_DISAGREE, "two engines give different answers"),
}


@dataclass(frozen=True, slots=True)
class Output:
    """What one evaluation came to, before digests are put to it."""

    outcome: Outcome
    denials: tuple[Denial, ...] = ()
    warnings: tuple[Advice, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    claims: TrustClaims | None = None
    detail: str = ""


def read_answer(answer: bytes, names: tuple[str, ...], document: PolicyInput) -> Output:
    """The outcome of the engine's answer to the query ``[allow, deny, …names]``.

    Args:
        answer: the engine's JSON.
        names: the optional rules that were asked for, in order.
        document: the input that was judged: its invariants stand above every policy.
    """
    seq = document.window.seq
    try:
        said = _of_any_window(answer, names) or _said(_decoded(answer), names, seq)
        if said is None:
            return failure("undefined", "", seq)
        claims = _claims(said.claims, trust_claims(document))
    except MalformedEvidence as error:
        return failure("error", str(error), seq, code=Code.POLICY_OUTPUT)
    allow, denials = said.allow, said.denials
    if not isinstance(allow, bool):
        return failure("error", f"allow is {shorten(allow)}, neither true nor false", seq, code=Code.POLICY_OUTPUT)
    # An invariant that the policy denies as well, with more to say, is not repeated; one that it forgives is.
    told = {denial.code for denial in denials if denial.sticks}
    denials = tuple(
        sorted({*denials, *(denial for denial in invariants(document) if denial.code not in told)}, key=repr)
    )
    if allow and not denials:
        return Output("allow", (), said.warnings, said.unchecked, said.obligations, claims)
    if not denials:
        denials = (_plain(Code.POLICY_DENIED, "the policy does not allow the window and gives no reason", seq),)
    return Output("deny", denials, said.warnings, said.unchecked, said.obligations, claims)


def failure(outcome: Outcome, detail: str, seq: int, *, code: Code | None = None) -> Output:
    """An evaluation that gave no answer, as a refusal with a code."""
    usual, message = _FAILURES[outcome]
    return Output(outcome, (_plain(code or usual, message, seq),), detail=detail[:_DETAIL_MAX])


def invariants(document: PolicyInput) -> tuple[Denial, ...]:
    """What stands against a window whatever the policy says.

    An empty device list (it would satisfy every ``every``), a held window, a model that is not declared, weights
    that differ.
    """
    found: list[tuple[Code, str]] = []
    if not document.gpus:
        found.append((Code.GPU_MISSING, "no GPU is enrolled in the session"))
    if document.window.freshness != "fresh":
        found.append((Code.WINDOW_HELD, "a held window is never admitted"))
    if not document.weights.declared:
        found.append((Code.MODEL_UNDECLARED, "the session declares no model"))
    declared = {model.manifest for model in document.weights.declared}
    if any(not model.declared or model.manifest not in declared for model in document.weights.loaded):
        found.append((Code.MODEL_UNDECLARED, "a model was loaded that is not declared"))
    if document.weights.differences:
        found.append((Code.WEIGHTS_MISMATCH, "loaded and declared weights differ"))
    return tuple(_plain(code, message, document.window.seq) for code, message in found)


def _plain(code: Code, message: str, seq: int) -> Denial:
    return Denial(code.value, seq, None, None, None, None, message)


@dataclass(frozen=True, slots=True)
class _Said:
    """What an answer says, read: nothing of it is compared with the document yet."""

    allow: strict.JsonValue
    denials: tuple[Denial, ...]
    warnings: tuple[Advice, ...]
    unchecked: tuple[Unchecked, ...]
    obligations: tuple[Obligation, ...]
    claims: strict.JsonValue


def _of_any_window(answer: bytes, names: tuple[str, ...]) -> _Said | None:
    """What an answer says that denies nothing, and so names no window; ``None`` for any other one, and for a long one.

    Nearly all windows get such an answer, and nearly all the same one: its bytes are read once.
    """
    return _remembered(answer, names) if len(answer) <= _REMEMBERED_MAX else None


@lru_cache(maxsize=_REMEMBERED)
def _remembered(answer: bytes, names: tuple[str, ...]) -> _Said | None:
    value = _decoded(answer)
    denies = not isinstance(value, list) or len(value) < 2 or value[1] != []  # noqa: PLR2004 - allow and deny
    return None if denies else _said(value, names, None)


def _said(value: strict.JsonValue, names: tuple[str, ...], seq: int | None) -> _Said | None:
    """``value`` as the answer about window ``seq``; ``None`` where it is undefined."""
    if value is None:
        return None
    allow, deny, *rest = _sized(value, 2 + len(names))
    denials = tuple(_denial(item, seq) for item in _sized(deny))
    sets = dict(zip(names, rest, strict=True))
    unchecked = tuple(_unchecked(item) for item in _sized(sets.get("unchecked", [])))
    warnings = tuple(_advice(item) for item in _sized(sets.get("warn", [])))
    obligations = tuple(_obligation(item) for item in _sized(sets.get("obligations", [])))
    return _Said(allow, denials, warnings, unchecked, obligations, sets.get("trust_claims", {}))


def _decoded(answer: bytes) -> strict.JsonValue:
    return _value(strict.json_decode(answer, what="answer"))


def _value(answer: strict.JsonValue) -> strict.JsonValue:
    """The value of the query's only expression; ``None`` where the engine says that it is undefined."""
    if answer == {}:
        return None
    results = _sized(_object(answer, {"result"})["result"], 1)
    expressions = _sized(_object(results[0], {"expressions"})["expressions"], 1)
    return _object(expressions[0], {"value", "text", "location"})["value"]


def _denial(value: strict.JsonValue, seq: int | None) -> Denial:
    given = _object(value, _DENIAL, optional={"message", "sticks"})
    code, window = given["code"], given["window"]
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise _malformed(f"a denial's code is {shorten(code)}")
    if window is not None and (type(window) is not int or window != seq):
        raise _malformed(f"a denial is about window {shorten(window)}")
    device, expected, got, hint, message = (
        _text(given, name) for name in ("device", "expected", "got", "hint", "message")
    )
    sticks = given.get("sticks", True)
    if not isinstance(sticks, bool):
        raise _malformed(f"sticks is {shorten(sticks)}, neither true nor false")
    return Denial(code, seq, device, expected, got, hint, message or code, sticks)


def _unchecked(value: strict.JsonValue) -> Unchecked:
    given = _object(value, {"check", "reason"})
    check, reason = _text(given, "check"), _text(given, "reason")
    if not check or not reason:
        raise _malformed("a check is left out without a reason")
    return Unchecked(check, reason)


def _advice(value: strict.JsonValue) -> Advice:
    given = _object(value, {"code", "message"}, optional={"device"})
    return Advice(_text(given, "code") or "", _text(given, "message") or "", _text(given, "device"))


def _obligation(value: strict.JsonValue) -> Obligation:
    given = _object(value, {"kind", "reason"}, optional={"seconds"})
    kind, seconds, reason = given["kind"], given.get("seconds"), _text(given, "reason")
    if not reason:
        raise _malformed("an obligation has no reason")
    if kind == "spot_check" and seconds is None:
        return Obligation("spot_check", None, reason)
    if kind == "reattest" and type(seconds) is int and 1 <= seconds <= _REATTEST_MAX:
        return Obligation("reattest", seconds, reason)
    raise _malformed(
        f"no obligation is {shorten(value)}: spot_check, or reattest with seconds from 1 to {_REATTEST_MAX}"
    )


def _claims(value: strict.JsonValue, shown: TrustClaims) -> TrustClaims:
    """What was shown, with the policy's own claims in place of some: none may be better than what was shown."""
    if not isinstance(value, dict):
        raise _malformed(f"trust_claims is {shorten(value)}, not an object")
    if not value:
        return shown
    merged = {name: dict(vector) for name, vector in shown.items()}
    for name, vector in value.items():
        if name not in merged or not isinstance(vector, dict):
            raise _malformed(f"trust_claims has {shorten(name)}: expected an object for {', '.join(sorted(merged))}")
        for claim, given in vector.items():
            known = merged[name].get(claim, 0)
            if claim not in AR4SI_CLAIMS or type(given) is not int or not -128 <= given <= 127:  # noqa: PLR2004 - a byte
                raise _malformed(f"trust_claims.{name} has {shorten(claim)}: {shorten(given)}, which AR4SI does not")
            if not not_better(given, known):
                raise _malformed(f"trust_claims.{name}.{claim} is {given}, better than what was shown: {known}")
            merged[name][claim] = given
    return MappingProxyType({name: MappingProxyType(vector) for name, vector in merged.items()})


def _text(given: strict.JsonObject, name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise _malformed(f"{name} is neither text nor null")
    return value


def _object(
    value: strict.JsonValue, names: frozenset[str] | set[str], optional: frozenset[str] | set[str] = frozenset()
) -> strict.JsonObject:
    if not isinstance(value, dict) or not names <= value.keys() or not value.keys() <= names | optional:
        raise _malformed(f"expected an object of {', '.join(sorted(names))}, got {shorten(value)}")
    return value


def _sized(value: strict.JsonValue, size: int | None = None) -> list[strict.JsonValue]:
    if not isinstance(value, list) or (size is not None and len(value) != size):
        raise _malformed(f"expected a list, got {shorten(value)}")
    return value


def _malformed(message: str) -> MalformedEvidence:
    return MalformedEvidence(Code.POLICY_OUTPUT, message, where="answer")
