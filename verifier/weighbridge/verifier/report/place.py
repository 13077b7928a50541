"""What ran where: the model, the host, the GPUs, and on whose word each rests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from weighbridge.verifier.anchors import EMULATED_PLATFORM
from weighbridge.verifier.report.markup import Child, Markup, element, joined
from weighbridge.verifier.report.parts import facts, hexadecimal, section, shortened, table, utc
from weighbridge.verifier.report.scale import span_text
from weighbridge.verifier.report.words import EMULATED_KEY, PROVENANCES, plural

if TYPE_CHECKING:
    from weighbridge.verifier.report.view import Device, SessionView
    from weighbridge.verifier.tpm.ak import Provenance

__all__ = ["where"]

_DEVICES_MAX: Final = 64


def where(view: SessionView) -> Markup:
    """The section."""
    period = f", a window every {span_text(view.period)}" if view.rows else ""
    rows: list[tuple[str, Child]] = [
        ("Model", _named(view.model_name, view.model)),
        *(("Adapter", _named(name, digest)) for digest, name in view.adapters),
        ("For", f"{view.tenant}, to decide: {view.audience}"),
        ("When", f"{utc(view.began)}, for {span_text(view.seconds)}{period}"),
        ("Attestation key", _key(view)),
        ("Measuring code", _code(view)),
        ("Ledger", f"{view.origin}, {plural(view.size, 'entry', 'entries')}; every record that is shown here is in it"),
    ]
    devices = table(
        "GPUs and switches, by what each of them signed about itself",
        ("Device", "Kind", "Chip", "Driver", "VBIOS", "Vouched for by"),
        (_device(number, device) for number, device in enumerate(view.devices[:_DEVICES_MAX], start=1)),
    )
    more = len(view.devices) - _DEVICES_MAX
    rest = element("p", f"… and {more:,} more", class_="soft") if more > 0 else None
    return section("where", "What ran where", facts(rows), element("h3", "Devices"), devices, rest)


def _named(name: str, digest: str) -> Markup:
    return joined([element("b", name) if name else None, " " if name else None, hexadecimal(digest)])


def _key(view: SessionView) -> Markup:
    # Every provenance has its words; a test says so.
    emulated = view.platform == EMULATED_PLATFORM
    reason = EMULATED_KEY if emulated else PROVENANCES[cast("Provenance", view.provenance)]
    detail = joined([element("br"), view.detail]) if view.detail else None
    return joined([f"{view.platform}: {reason} ({view.provenance}, by the word of {view.anchor}).", detail])


def _code(view: SessionView) -> Markup:
    status, missing = view.attester_code
    if status == "proven":
        return element("span", "proven: what booted and ran there is what its owner accepts, and nothing else")
    lacking = f" Missing: {', '.join(missing)}." if missing else ""
    return element("span", f"{status}: what it says of loads, counts and sensors is the host's word.{lacking}")


def _device(number: int, device: Device) -> tuple[Child, ...]:
    identity = element("code", shortened(device.identity), title=device.identity)
    return (
        joined([f"{device.kind} {number} ", identity]),
        device.kind,
        device.chip,
        device.driver,
        device.vbios,
        device.platform,
    )
