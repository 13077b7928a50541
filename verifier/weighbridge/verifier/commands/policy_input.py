"""``weighbridge policy input``: what policies see of a recorded window, as JSON."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, PolicyDenied
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read_reference, write

if TYPE_CHECKING:
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.recorded import RecordedWindow

__all__ = ["configure", "window_of"]

_WINDOW_MAX: Final = 2**53 - 1
_EPILOG: Final = """\
examples:
  weighbridge policy input session.wb --anchors anchors.json --window 3
  weighbridge policy input session.wb --anchors anchors.json --window 3 -o window-3.json
  weighbridge policy eval my-policy --input window-3.json

The bundle is verified first, up to where a policy would be asked. The document says what was known when the window was
received, by the reference values of then unless others are named; `weighbridge policy docs` says what each member is.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy input`` to ``parser``."""
    parser.description = (
        "Print the document that policies see of a recorded window. Whoever is handed it cannot tell it from another "
        "that somebody wrote: it is for trying policies, and no evidence."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("bundle", metavar="BUNDLE", help="a session.wb file, or - for standard input")
    parser.add_argument("--window", type=_window, required=True, metavar="N", help="which window")
    parser.add_argument(
        "--anchors",
        action="append",
        default=[],
        metavar="FILE",
        help="believe these keys; shipped: those shipped, the default (several times)",
    )
    parser.add_argument(
        "--reference", metavar="FILE", help="reference values to lay it out by (default: those recorded)"
    )
    parser.add_argument("-o", "--output", type=given.output, metavar="FILE", help="write it there")
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=_run)


def _window(text: str) -> int:
    return given.decimal(text, what="the window", limit=_WINDOW_MAX)


def _run(arguments: argparse.Namespace) -> Outcome:
    anchors = load_anchors(arguments.anchors)
    reference = None if arguments.reference is None else read_reference(arguments.reference)
    window, document = window_of(arguments.bundle, arguments.window, anchors=anchors, reference=reference)
    value = strict.json_decode(document.to_json(), what="input")
    data = strict.json_encode(value, indent=2) + b"\n"
    if arguments.output is None:
        return Outcome(data.decode(), value if isinstance(value, dict) else {})
    write(arguments.output, data, doing="writing the document")
    return Outcome(
        f"{arguments.output}: window {window.seq} of session {window.session.hex()}, received {document.received_at}\n"
        f"its recorded verdict: {window.outcome}\n",
        {
            "schema": "weighbridge/policy-input-written/v1",
            "written": str(arguments.output),
            "session": window.session.hex(),
            "window": window.seq,
            "received_at": document.received_at,
            "outcome": window.outcome,
            "input_digest": document.input_digest.hex(),
        },
    )


def window_of(
    path: str, seq: int, *, anchors: TrustAnchors, reference: Reference | None
) -> tuple[RecordedWindow, PolicyInput]:
    """Window ``seq`` of the bundle in the file ``path``, which is verified up to it, and what policies see of it.

    Raises:
        WeighbridgeError: as :func:`weighbridge.verifier.recorded.windows`.
        EnvironmentFault: ``FILE_UNREADABLE``: there is no such window.
        PolicyDenied: it was refused before any policy was asked; with the code of that.
    """
    from weighbridge.verifier.commands.bundle import read_bundle  # noqa: PLC0415 - heavy, and only here
    from weighbridge.verifier.recorded import windows  # noqa: PLC0415 - as above

    last = -1
    for window in windows(read_bundle(path), anchors=anchors, reference=reference):
        last = window.seq
        if window.seq == seq:
            return window, _seen(window)
    raise EnvironmentFault(
        Code.FILE_UNREADABLE,
        "the bundle has no such window",
        where=path,
        expected=f"0 to {last}",
        got=seq,
        hint="`weighbridge verify bundle` lists them",
    )


def _seen(window: RecordedWindow) -> PolicyInput:
    if window.document is not None:
        return window.document
    first, *_ = window.refused
    raise PolicyDenied(
        Code(first.code),
        f"no policy sees the window: {first.message}",
        where=f"window {window.seq}",
        expected=first.expected,
        got=first.got,
        hint="an invariant refused it before any policy is asked: `weighbridge policy invariants` lists them",
    )
