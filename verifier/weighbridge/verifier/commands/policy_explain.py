"""``weighbridge policy explain``: why a window was refused, or admitted: which rule, which line, in words."""

from __future__ import annotations

import argparse
import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, Indeterminate, MalformedEvidence
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import (
    Outcome,
    load_anchors,
    load_document,
    policy_named,
    read,
    read_manifest,
    read_reference,
    taken_for,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from weighbridge.policy.authoring.explain import Explainer
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.policy_set import PolicyFiles, PolicySet
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto import strict
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.commands.policy_reasons import Told
    from weighbridge.verifier.recorded import RecordedWindow

__all__ = ["configure"]

_COMMAND: Final = "policy explain"
_WINDOW_MAX: Final = 2**53 - 1
_MOST: Final = 20
_DEFAULT: Final = "production"
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,63}")
_EPILOG: Final = """\
examples:
  weighbridge policy explain session.wb --anchors anchors.json
  weighbridge policy explain session.wb --anchors anchors.json --window 3 --verbose
  weighbridge policy explain session.wb --anchors anchors.json --policy my-policy
  weighbridge policy explain STATE --session 3f2a… --window 7
  weighbridge policy explain --input document.json --policy my-policy --reference reference.json
  weighbridge policy explain --code BASELINE_UNEXPLAINED

Evidence is verified first. Each window is judged by the policy that judged it then, or by yours (--policy). Without
--window, the windows that are refused are explained; if none is, the last one. What was refused before there was a
session is not in the evidence: --code says what its code stands for. Exit 0 when all that is explained is admitted,
5 when not, 3, 4, 6, 7 or 8 when the evidence cannot be verified.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy explain`` to ``parser``."""
    parser.description = "Say why a window was refused: rule, line, the values on both sides; or why it was admitted."
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "evidence",
        nargs="?",
        metavar="BUNDLE|STATE",
        help="a session.wb file, or a verifier's directory",
    )
    parser.add_argument(
        "--input", metavar="FILE", help="a document instead, or a golden input, or - for standard input"
    )
    parser.add_argument(
        "--code", type=_code, metavar="CODE", help="or a refusal's code: what always holds, which rules say it"
    )
    parser.add_argument("--session", type=given.session, metavar="HEX", help="which session of STATE")
    parser.add_argument("--window", type=_window, metavar="N", help="only this window, also when it is admitted")
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        action="append",
        default=[],
        help="to judge by: a policy's directory or Rego file (several times for several), a signed bundle, or a "
        "shipped one's name (default: the one that judged)",
    )
    parser.add_argument("--reference", metavar="FILE", help="reference values to judge by (default: the recorded ones)")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="believe these keys; beside STATE's own; shipped: those shipped, the default (several times)",
    )
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        action="append",
        default=[],
        help="a manifest that `serve` was given: STATE does not have it, bundles do (several times)",
    )
    parser.add_argument("--verbose", action="store_true", help="every statement of every rule that was asked")
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=_run)


def _window(text: str) -> int:
    return given.decimal(text, what="the window", limit=_WINDOW_MAX)


def _code(text: str) -> str:
    # A policy has codes of its own: what they look like is all that is known.
    if not _CODE.fullmatch(text):
        raise argparse.ArgumentTypeError("a code is in capital letters, such as MODEL_UNDECLARED")
    return text


def _misused(arguments: argparse.Namespace) -> str:
    """What is wrong with the arguments together; empty if nothing."""
    if sum(item is not None for item in (arguments.evidence, arguments.input, arguments.code)) != 1:
        return "name either a bundle or a state directory, or --input, or --code"
    if arguments.evidence is None and (arguments.session is not None or arguments.window is not None):
        return "--session and --window are for recorded evidence"
    if arguments.input is not None and not arguments.policy:
        return "--input needs --policy: no policy judged it yet"
    if arguments.evidence is not None and (arguments.session is None) == Path(arguments.evidence).is_dir():
        return (
            "--session says which session of a state directory, in full (`weighbridge sessions` lists them); a bundle "
            "has one"
        )
    return ""


def _run(arguments: argparse.Namespace) -> Outcome | ExitCode:
    from weighbridge.verifier.commands.policy_reasons import coded, outcome_of  # noqa: PLC0415 - heavy, and only here

    if misused := _misused(arguments):
        return usage(misused, command=_COMMAND)
    if arguments.code is not None:
        return coded(arguments.code, _of_names(arguments))
    if arguments.input is not None:
        told, more = [_of_document(arguments)], 0
    else:
        with _Judges(arguments.policy) as judges, contextlib.ExitStack() as stack:
            told, more = _of_windows(arguments, judges, stack)
    document: strict.JsonObject = {
        "schema": "weighbridge/policy-explain/v1",
        "windows": [item.document for item in told],
        "not_shown": more,
    }
    return outcome_of(told, more, document, verbose=arguments.verbose)


@final
@dataclass(slots=True)
class _Judges:
    """Policies that explain, each loaded once: the caller's, or those that the records name."""

    names: list[str]
    _made: dict[tuple[bytes, bytes], Explainer] = field(default_factory=dict)

    def of(self, window: RecordedWindow, policies: Callable[[bytes], PolicyFiles]) -> Explainer:
        """Of the policy by which ``window`` is judged.

        Raises:
            WeighbridgeError: there is none, or it does not load.
        """
        key = (b"" if self.names else window.policy, window.reference.digest)
        if key not in self._made:
            self._made[key] = _explainer(self._policy(window, policies))
        return self._made[key]

    def _policy(self, window: RecordedWindow, policies: Callable[[bytes], PolicyFiles]) -> PolicySet:
        from weighbridge.policy import policy_set  # noqa: PLC0415 - heavy, and only here
        from weighbridge.verifier.record import NO_DIGEST  # noqa: PLC0415

        if self.names:
            return policy_named(self.names, window.reference)
        if window.policy == NO_DIGEST:
            raise Indeterminate(
                Code.POLICY_ABSENT,
                "no policy judged this window then",
                where=f"window {window.seq}",
                hint="name your own: --policy",
            )
        try:
            return policy_set.recorded(policies(window.policy), reference=window.reference)
        except ValueError as error:
            raise MalformedEvidence(Code.BUNDLE_MALFORMED, f"no policy set: {error}", where="policies") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for made in self._made.values():
            made.close()


def _explainer(policy: PolicySet) -> Explainer:
    from weighbridge.policy.authoring.explain import Explainer  # noqa: PLC0415 - heavy, and only here

    return Explainer(policy)


def _of_document(arguments: argparse.Namespace) -> Told:
    from weighbridge.verifier.commands.policy_reasons import judged  # noqa: PLC0415 - heavy, and only here

    document, came_with = _read(arguments.input)
    with _explainer(_of_names(arguments, came_with)) as explainer:
        return judged(explainer.explain(document), document)


def _of_names(arguments: argparse.Namespace, came_with: Reference | None = None) -> PolicySet:
    """The caller's policy, ``production`` where none is named, by the reference values that he names or has beside."""
    from weighbridge.policy.values.reference import Reference  # noqa: PLC0415 - heavy, and only here

    reference = came_with if arguments.reference is None else read_reference(arguments.reference)
    names = arguments.policy or [_DEFAULT]
    return policy_named(names, reference or _beside(names) or Reference({}, {}, {}))


def _beside(names: list[str]) -> Reference | None:
    """The reference values in a policy's own directory, with which its author tries it."""
    from weighbridge.policy.authoring.sources import REFERENCE  # noqa: PLC0415 - heavy, and only here

    found = [Path(name) / REFERENCE for name in names if (Path(name) / REFERENCE).is_file()]
    return read_reference(str(found[0])) if found else None


def _read(path: str) -> tuple[PolicyInput, Reference | None]:
    from weighbridge.policy.authoring.golden import SCHEMA, Golden  # noqa: PLC0415 - heavy, and only here
    from weighbridge.policy.document import PolicyInput  # noqa: PLC0415
    from weighbridge.proto import limits, strict  # noqa: PLC0415

    data = read(path, limit=limits.JSON_MAX)
    with taken_for(path, what="a policy's input", hint="`weighbridge policy eval … --record` writes a golden one"):
        value = strict.json_decode(data, what="input")
        if isinstance(value, dict) and value.get("schema") == SCHEMA:
            made = Golden.parse(data)
            return made.input, made.reference
        return PolicyInput.parse(data), None


def _of_windows(arguments: argparse.Namespace, judges: _Judges, stack: contextlib.ExitStack) -> tuple[list[Told], int]:
    """What is to be told of the windows, and of how many more nothing is."""
    from weighbridge.verifier.commands.policy_reasons import judged, refused  # noqa: PLC0415 - heavy, and only here

    found, policies = _evidence(arguments, stack)
    told: list[Told] = []
    more, seen = 0, -1
    last: tuple[RecordedWindow, PolicyInput] | None = None
    for window in found:
        seen = window.seq
        if arguments.window not in (None, window.seq):
            continue
        if window.document is None:
            if len(told) < _MOST:
                told.append(refused(window))
            else:
                more += 1
            continue
        if arguments.window is None and not arguments.policy and window.outcome == "affirmed":
            last = window, window.document
            continue
        explainer = judges.of(window, policies)
        decision = explainer.decide(window.document)
        if arguments.window is None and decision.allowed:
            last = window, window.document
        elif len(told) < _MOST:
            told.append(judged(explainer.of(window.document, decision), window.document))
        else:
            more += 1
    if not told and last is not None:
        window, document = last
        told.append(judged(judges.of(window, policies).explain(document), document))
    if not told:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            "there is no such window",
            where=arguments.evidence,
            expected=f"0 to {seen}" if seen >= 0 else "one window at least",
            got=arguments.window,
            hint="`weighbridge verify bundle` lists them",
        )
    return told, more


def _evidence(
    arguments: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[Iterable[RecordedWindow], Callable[[bytes], PolicyFiles]]:
    from weighbridge.verifier.commands.bundle import read_bundle  # noqa: PLC0415 - heavy, and only here
    from weighbridge.verifier.recorded import windows  # noqa: PLC0415

    anchors = load_anchors(arguments.anchors)
    reference = None if arguments.reference is None else read_reference(arguments.reference)
    if arguments.session is None:
        bundle = read_bundle(arguments.evidence)
        return windows(bundle, anchors=anchors, reference=reference), bundle.policy_named
    return _of_state(arguments, stack, anchors, reference)


def _of_state(
    arguments: argparse.Namespace, stack: contextlib.ExitStack, anchors: TrustAnchors, reference: Reference | None
) -> tuple[Iterator[RecordedWindow], Callable[[bytes], PolicyFiles]]:
    from weighbridge.verifier.commands.state import deployment_class, open_store  # noqa: PLC0415 - only here
    from weighbridge.verifier.recorded_state import chain_of, recorded_sessions, session_windows  # noqa: PLC0415

    state = Path(arguments.evidence)
    store = open_store(state)
    stack.callback(store.close)
    records, reader = stack.enter_context(deployment_class().reading(state))
    # Whoever believes them anyway may name the verifier's keys as well.
    known = {(anchor.purpose, anchor.spki) for anchor in anchors.anchors}
    own = [item for item in load_document(state / "anchors.json").anchors if (item.purpose, item.spki) not in known]
    session = next((item for item in recorded_sessions(store, reader) if item.session == arguments.session), None)
    if session is None:
        raise EnvironmentFault(
            Code.SESSION_UNKNOWN,
            "there is no such session",
            where=str(state),
            got=arguments.session,
            hint=f"`weighbridge sessions {state}` lists them",
        )
    indices = chain_of(store, reader, session.session)
    chain = indices[: session.windows - (session.ending is not None)]
    manifests = {item.digest: item for item in map(read_manifest, arguments.manifest)}
    found = session_windows(
        records,
        session,
        chain,
        anchors=anchors.with_anchors(own),
        reference=reference,
        manifests=manifests,
    )
    return found, records.policy
