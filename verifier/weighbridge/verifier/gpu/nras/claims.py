"""What the claims of NVIDIA's attestation service say against a device.

Claims are read for what they refuse. Nothing is concluded from a claim that is as it should be: ``secboot`` and
``dbgstat`` rest on no evidence of their own and follow ``measres``, and no claim of any version says that confidential
mode is on. A claim that is absent where the service gives it says against the device too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from weighbridge.proto import strict

__all__ = ["OVERALL", "Contradiction", "of_device", "of_overall", "warnings"]

OVERALL: Final = "x-nvidia-overall-att-result"
_Claims = Mapping[str, strict.JsonValue]

# What each device's token has, in all versions, and how it should be.
_WANTED: Final[Mapping[str, strict.JsonValue]] = {"measres": "success", "secboot": True, "dbgstat": "disabled"}
# The same of those that carry the kind of the device in their names.
_CHECKS: Final = ("arch-check", "attestation-report-nonce-match", "attestation-report-signature-verified")
# Of a certificate chain, from version 3.0 on.
_CHAIN: Final[Mapping[str, strict.JsonValue]] = {
    "x-nvidia-cert-status": "valid",
    "x-nvidia-cert-ocsp-status": "good",
    "x-nvidia-cert-revocation-reason": None,
}
_CHAIN_NAME: Final = "cert-chain"
_PREFIX: Final = "x-nvidia-"
_WARNING: Final = "x-nvidia-attestation-warning"
# What is there only when something went wrong.
_TROUBLE: Final = (
    "x-nvidia-error-details",
    "x-nvidia-mismatch-measurement-records",
    "x-nvidia-mismatch-opaque-data-records",
)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A claim that speaks against a device.

    Attributes:
        claim: such as ``GPU-0.measres``, or ``overall.x-nvidia-overall-att-result``.
        expected: what a good device's says, as JSON.
        got: what it says, as JSON; ``absent`` where it is silent.
    """

    claim: str
    expected: str
    got: str

    def __str__(self) -> str:
        """On one line."""
        return f"{self.claim} is {self.got}, not {self.expected}"


def of_overall(claims: _Claims) -> tuple[Contradiction, ...]:
    """What the token over all devices says against them."""
    return tuple(_differing("overall", claims, {OVERALL: True}))


def of_device(name: str, claims: _Claims) -> tuple[Contradiction, ...]:
    """What the token of the device ``name``, such as ``GPU-0``, says against it."""
    kind = name.partition("-")[0].lower()
    checks: _Claims = dict.fromkeys((f"{_PREFIX}{kind}-{check}" for check in _CHECKS), True)
    found = [*_differing(name, claims, _WANTED), *_differing(name, claims, checks)]
    for claim, value in sorted(claims.items()):
        path = f"{name}.{claim}"
        if claim in _TROUBLE and value not in (None, [], {}):
            found.append(_contradiction(path, None, value))
        elif claim.startswith(_PREFIX) and claim.endswith(_CHAIN_NAME):
            found += _of_chain(path, value)
        elif claim.startswith(_PREFIX) and claim not in checks and value is False:
            found.append(_contradiction(path, not value, value))
    return tuple(found)


def warnings(name: str, claims: _Claims) -> tuple[str, ...]:
    """What the service warns of, as JSON: for people, nothing is concluded from it."""
    value = claims.get(_WARNING)
    return () if value is None else (f"{name}: {_json(value)}",)


def _of_chain(path: str, value: strict.JsonValue) -> Iterable[Contradiction]:
    if not isinstance(value, dict):
        return [_contradiction(path, dict(_CHAIN), value)]
    others = [
        _contradiction(f"{path}.{name}", not inner, inner) for name, inner in sorted(value.items()) if inner is False
    ]
    return [*_differing(path, value, _CHAIN), *others]


def _differing(where: str, claims: _Claims, wanted: _Claims) -> Iterable[Contradiction]:
    for claim, expected in wanted.items():
        if claim not in claims:
            yield Contradiction(f"{where}.{claim}", _json(expected), "absent")
        # 1 is not true, and 0 is not false.
        elif claims[claim] != expected or type(claims[claim]) is not type(expected):
            yield _contradiction(f"{where}.{claim}", expected, claims[claim])


def _contradiction(path: str, expected: strict.JsonValue, got: strict.JsonValue) -> Contradiction:
    return Contradiction(path, _json(expected), _json(got))


def _json(value: strict.JsonValue) -> str:
    return strict.json_encode(value).decode()
