"""A judgement of GPU evidence for people: a line that says what it comes to, a tree of why, and what is not proven."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.anchors import EMULATED_PLATFORM
from weighbridge.verifier.commands.gpu_document import WORDS
from weighbridge.verifier.commands.gpu_verdict import Facts
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.commands.tree import Branch, render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.collateral import Collateral
    from weighbridge.verifier.commands.gpu_verdict import Device, Judgement, Manifest, Question, Standing
    from weighbridge.verifier.gpu import SignedMode, VerifiedGpuReport
    from weighbridge.verifier.gpu.rim.compare import Mismatch

__all__ = ["tree"]

# A wrong driver differs in some thirty, and a manifest may allow sixteen: --json has all of them.
_MISMATCHES_MAX: Final = 8
_EXPECTED_MAX: Final = 4
_DIGITS: Final = 48
_FEATURES: Final = {
    "spt": "single-GPU pass-through (SPT)",
    "mpt": "multi-GPU pass-through (MPT)",
    "ppcie": "protected PCIe (PPCIE)",
}
_OWNERS: Final = {"driver": "driver", "vbios": "VBIOS"}
_TOPOLOGY: Final = {
    "complete": "complete: GPUs and switches name each other, and nobody else",
    "not claimed": "not claimed: no GPU is in protected-PCIe mode",
    "wrong": "wrong: not the GPUs and switches that name each other",
    "not judged": "not judged",
}
_GOOD: Final = "authentic, measured as its maker says, not revoked"
_LABEL: Final = 14


def tree(judgement: Judgement, question: Question, collateral: Collateral, *, place: str) -> str:
    """The text, ending with a newline. ``place`` is where the evidence was read."""
    root = Branch(
        f"{place}: {_devices(judgement)}, at {strict.time_encode(question.at)}",
        (
            _line("nonce", "the file's own word" if question.nonce is None else question.nonce.hex()),
            _line("collateral", _collateral(collateral), _disbelieved(judgement)),
            *(_device(device) for device in judgement.devices),
            Branch("together", tuple(_together(judgement))),
            Branch("not proven", tuple(Branch(text) for text in judgement.not_proven)),
        ),
        indent=3,
    )
    return "".join(f"{line}\n" for line in [*_head(judgement), *render(root), *_hints(judgement)])


def _head(judgement: Judgement) -> list[str]:
    """The worst reason."""
    word = WORDS[judgement.status].upper()
    if not judgement.reasons:
        return render(Branch(f"{word}: {_devices(judgement)}: {_GOOD}"))
    number, reason = judgement.reasons[0]
    alone = number is None or len(judgement.devices) == 1
    whose = "" if alone else f"device {number}: "
    return render(Branch(f"{word}: {reason.code.value}: {whose}{reason.message}", indent=2))


def _devices(judgement: Judgement) -> str:
    gpus, switches = judgement.count("gpu"), judgement.count("switch")
    refused = sum(1 for device in judgement.devices if device.facts is None)
    parts = [counted(gpus, "GPU")] if gpus or not switches else []
    if switches:
        parts.append(counted(switches, "switch", "switches"))
    return " and ".join(parts) + (f", {refused} refused" if refused else "")


def _collateral(collateral: Collateral) -> str:
    if not collateral.items:
        return "none: nothing is known of measurements and of revocation"
    manifests, statements = len(collateral.of_kind("rim")), len(collateral.of_kind("ocsp") + collateral.of_kind("crl"))
    said = f"{counted(manifests, 'manifest')} and {counted(statements, 'statement')} on revocation"
    return f"{said}, digest {collateral.digest.hex()[:16]}"


def _disbelieved(judgement: Judgement) -> tuple[Branch, ...]:
    found = judgement.disbelieved
    listed = [Branch(f"not believed: {item.digest.hex()[:16]}: {item.reason}", indent=2) for item in found]
    return _first(listed, "more that are not believed")


def _device(device: Device) -> Branch:
    word = WORDS[device.status].upper()
    facts = device.found
    if not isinstance(facts, Facts):
        hint = [_line("hint", facts.hint)] if facts.hint else []
        return Branch(f"device {device.number}: {word}", (_line("because", str(facts)), *hint))
    verified, told = facts.verified, {reason.code for reason in device.reasons}
    what = "GPU" if verified.kind == "gpu" else "switch"
    return Branch(
        f"device {device.number}: {what} {verified.chain.architecture}: {word}",
        (
            *(_line("because", f"{item.code.value}: {item.message}") for item in device.reasons),
            _line("identity", verified.identity.hex()),
            _line("authentic", f"chain to a device root of {verified.platform}, signature, nonce"),
            _line("model", _model(verified)),
            _line("firmware", "as certified" if verified.fwid == "matches" else "no digest to compare"),
            *([_line("signed mode", _mode(verified.mode))] if verified.kind == "gpu" else []),
            _measured(facts),
            _line("revocation", _standing(facts.revocation)),
            *(_line("finding", f"{code.value}: {message}") for code, message in facts.findings if code not in told),
        ),
    )


def _model(verified: VerifiedGpuReport) -> str:
    driver = [f"driver {verified.report.driver_version or 'not reported'}"] if verified.kind == "gpu" else []
    return ", ".join([verified.chain.model, *driver, f"VBIOS {verified.report.vbios_version or 'not reported'}"])


def _mode(mode: SignedMode) -> str:
    if mode.feature is not None:
        return _FEATURES[mode.feature]
    if mode.protected_pcie is None:
        return "not reported"
    return "protected PCIe" if mode.protected_pcie else "not protected PCIe"


def _measured(facts: Facts) -> Branch:
    measured = facts.measured
    equal = measured.compared - len(measured.mismatches)
    text = f"{measured.status}: {equal} of {measured.compared} compared are the maker's"
    if not facts.manifests:
        text = f"{measured.status}: nothing to compare the {len(facts.verified.report.blocks)} with"
    below = [
        *(_manifest(manifest) for manifest in facts.manifests),
        *(Branch(f"missing: {item.service_id}: {item.why}", indent=2) for item in facts.missing),
        *_first([_mismatch(item) for item in measured.mismatches], "more that differ: --json has all"),
    ]
    indices = (
        ("claimed by both manifests", measured.conflicts),
        ("not zero, and in no manifest", measured.uncovered),
        ("not held against it, its video decoder is disabled", measured.skipped),
    )
    below += [Branch(f"{what}: {', '.join(map(str, numbers))}") for what, numbers in indices if numbers]
    return _line("measurements", text, tuple(below))


def _manifest(manifest: Manifest) -> Branch:
    rim = manifest.rim
    return Branch(
        f"{rim.id}: issued {rim.issued:%Y-%m-%d}, ends {rim.not_after:%Y-%m-%d}, {rim.digest.hex()[:16]}",
        (Branch(f"signer {_standing(manifest.signer)}", indent=2),),
        indent=2,
    )


def _mismatch(item: Mismatch) -> Branch:
    expected = [Branch(f"{_label('expected')}{_short(value)}") for value in item.expected]
    return Branch(
        f"differs: {item.index}, {item.name} of the {_OWNERS[item.owner]}",
        (
            *_first(expected, "more would be right", most=_EXPECTED_MAX),
            Branch(f"{_label('got')}{_short(item.got) if item.got else 'nothing'}"),
            *(_line("perhaps", cause) for cause in item.causes),
        ),
    )


def _standing(standing: Standing) -> str:
    until = "" if standing.until is None else f" until {strict.time_encode(standing.until)}"
    worst = standing.worst
    said = "" if worst is None or standing.status == "good" else f": {worst.name}: {worst.detail}"
    return f"{standing.status}{until}{said}"


def _together(judgement: Judgement) -> list[Branch]:
    return [
        *(_line("because", f"{item.code.value}: {item.message}") for item in judgement.together),
        *(_line("hint", item.hint) for item in judgement.together if item.hint),
        _line("devices", f"{_devices(judgement)}, {_twice(judgement)}"),
        _line("topology", _TOPOLOGY[judgement.topology]),
    ]


def _twice(judgement: Judgement) -> str:
    twice = len(judgement.facts) - judgement.count("gpu") - judgement.count("switch")
    return f"{twice} presented again" if twice else "each once"


def _hints(judgement: Judgement) -> list[str]:
    incomplete = any(
        facts.missing
        or facts.revocation.status in ("absent", "stale")
        or any(item.signer.status in ("absent", "stale") for item in facts.manifests)
        for facts in judgement.facts
        # Nobody publishes anything of emulated devices but who made them.
        if facts.verified.platform != EMULATED_PLATFORM
    )
    if not incomplete or judgement.status not in (ExitCode.INDETERMINATE, ExitCode.DENIED):
        return []
    return ["hint: weighbridge collateral fetch gets what is missing for this evidence; then pass --collateral"]


def _line(label: str, text: str, below: tuple[Branch, ...] = ()) -> Branch:
    return Branch(f"{_label(label)}{text}", below, _LABEL)


def _label(label: str) -> str:
    return f"{label:<{_LABEL}}"


def _short(value: bytes) -> str:
    text = value.hex()
    return text if len(text) <= _DIGITS else f"{text[:_DIGITS]}…"


def _first(branches: Sequence[Branch], what: str, *, most: int = _MISMATCHES_MAX) -> tuple[Branch, ...]:
    left = len(branches) - most
    return (*branches[:most], *([Branch(f"… {left} {what}")] if left > 0 else []))
