"""Puts a :class:`~forge.recorder.Recorder` in the place of every call by which cases tell the product something."""

# ruff: noqa: ANN401 - what stands in the place of a function has whatever types that one has
from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import corpus.bundle
import corpus.freshness
import corpus.honest
import corpus.ledger
import corpus.logs
import corpus.nras
from forge.recorder import Noted
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.proto.terms import SignedTerms
from weighbridge.verifier import anchors, result_token
from weighbridge.verifier.conformance.result import of_bundle, of_error
from weighbridge.verifier.core import Verifier
from weighbridge.verifier.gpu.nras import VerifiedNras
from weighbridge.verifier.reference_watch import ReferenceWatch
from weighbridge.verifier.requirements import Requirements
from weighbridge.verifier.result_token import ResultToken
from weighbridge.verifier.spots import Spots

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from forge.recorder import Recorder


@contextmanager
def recording(recorder: Recorder) -> Generator[None]:
    """Note in ``recorder`` what is told to the product within."""
    with ExitStack() as stack:
        for target, name, make in (
            *_of_verifiers(recorder),
            *_of_tokens(recorder),
            *_of_documents(recorder),
            *_of_others(recorder),
        ):
            original = getattr(target, name)
            stack.enter_context(mock.patch.object(target, name, make(original)))
        yield


_Patch = tuple[Any, str, "Callable[[Any], Any]"]


def _of_verifiers(recorder: Recorder) -> list[_Patch]:  # noqa: C901 - one short function for each call
    def begin(original: Any) -> Any:
        def made(self: Verifier, **given: Any) -> None:
            noted = Noted()
            original(self, **given, chance=noted)
            recorder.started(self, given, noted)

        return made

    def entering(op: str, member: str) -> Callable[[Any], Any]:
        def patched(original: Any) -> Any:
            def made(self: Verifier, data: bytes, *, peer: bytes, **rest: Any) -> Any:
                step = {"op": op, "peer": peer.hex(), member: _base64(data)}
                if op == "prove":
                    recorder.probed(self, lambda probe: probe.proof(self, data, peer))
                return recorder.call(self, step, lambda: original(self, data, peer=peer, **rest))

            return made

        return patched

    def window(original: Any) -> Any:
        def made(self: Verifier, session: bytes, data: bytes, *, peer: bytes) -> Any:
            step = {"op": "window", "peer": peer.hex(), "session": session.hex(), "window": _base64(data)}
            recorder.probed(self, lambda probe: probe.window(self, session, data, peer))
            return recorder.call(self, step, lambda: original(self, session, data, peer=peer))

        return made

    def named(op: str) -> Callable[[Any], Any]:
        def patched(original: Any) -> Any:
            def made(self: Verifier, session: bytes, *, peer: bytes) -> Any:
                step = {"op": op, "peer": peer.hex(), "session": session.hex()}
                return recorder.call(self, step, lambda: original(self, session, peer=peer))

            return made

        return patched

    def opening(original: Any) -> Any:
        def made(self: ReferenceWatch, at: Any) -> Any:
            return recorder.opened(self, at, lambda: original(self, at))

        return made

    def looking(original: Any) -> Any:
        def made(self: Verifier) -> None:
            recorder.refreshed(self, lambda: original(self))

        return made

    def forgiving(original: Any) -> Any:
        def made(archive: Any, store: Any, kind: str, identity: bytes, **rest: Any) -> Any:
            at = strict.time_encode(rest["at"])
            step = {"op": "clear", "at": at, "kind": kind, "identity": identity.hex(), "reason": rest["reason"]}
            recorder.operated(step, store)
            return original(archive, store, kind, identity, **rest)

        return made

    return [
        (Verifier, "__init__", begin),
        (Verifier, "open", entering("open", "opening")),
        (Verifier, "prove", entering("prove", "proof")),
        (Verifier, "window", window),
        (Verifier, "resume", named("resume")),
        (Verifier, "close", named("close")),
        (Verifier, "refresh", looking),
        (ReferenceWatch, "open", opening),
        (corpus.honest, "clear", forgiving),
    ]


def _of_tokens(recorder: Recorder) -> list[_Patch]:
    def verify(original: Any) -> Any:
        def made(token: str, key: Any, *, audience: str, at: Any) -> Any:
            said = {"token": token, "key": _public(key), "audience": audience, "upstream": None}
            step = {"op": "token", "at": strict.time_encode(at), **said}
            if recorder.probe is not None:
                recorder.probe.token(token, lambda other: original(other, key, audience=audience, at=at))
            return recorder.check(step, lambda: original(token, key, audience=audience, at=at))

        return made

    def upstream(original: Any) -> Any:
        def made(self: ResultToken, spki_digest: bytes) -> None:
            # Of one thing with the token's own step.
            step = {**recorder.steps.pop(), "upstream": spki_digest.hex()}
            recorder.results.pop()
            recorder.check(step, lambda: original(self, spki_digest))

        return made

    def terms(original: Any) -> Any:
        def made(raw: bytes, key: Any) -> Any:
            step = {"op": "terms", "terms": _base64(raw), "key": _public(key)}
            return recorder.check(step, lambda: original(raw, key))

        return made

    return [
        (result_token, "verify", verify),
        (ResultToken, "require_upstream", upstream),
        (SignedTerms, "open", terms),
    ]


def _of_documents(recorder: Recorder) -> list[_Patch]:
    def reading(kind: str) -> Callable[[Any], Any]:
        def patched(original: Any) -> Any:
            def made(data: bytes) -> Any:
                step = {"op": "read", "kind": kind, "document": _base64(data)}
                return recorder.check(step, lambda: original(data), refusals_only=True)

            return made

        return patched

    return [
        (Requirements, "parse", reading("requirements")),
        (Reference, "parse", reading("reference")),
        (anchors, "load", reading("anchors")),
    ]


def _of_others(recorder: Recorder) -> list[_Patch]:  # noqa: C901 - as above
    def bundle(original: Any) -> Any:
        def made(self: Any, shown: Any = None, **given: Any) -> Any:
            published, at = given.get("published"), given.get("at")
            believed = given.get("anchors") or corpus.bundle.believed(self.world)
            step = {
                "op": "bundle",
                "bundle": _base64((shown or self.bundle).encode()),
                "anchors": _base64(believed.encode()),
                "policy": given.get("policy"),
                "collateral": None if published is None else _base64(published.collateral.encode()),
                "publishers": None if published is None else _base64(published.anchors.encode()),
                "at": None if at is None else strict.time_encode(at),
            }
            try:
                verdict = original(self, shown, **given)
            except WeighbridgeError as error:
                recorder.note(step, of_error(error))
                raise
            recorder.note(step, of_bundle(verdict))
            return verdict

        return made

    def nras(original: Any) -> Any:
        def made(data: bytes, *, jwks: Any, anchors: Any, at: Any, nonce: bytes) -> Any:
            step = {
                "op": "nras",
                "at": strict.time_encode(at),
                "answer": _base64(data),
                "key_sets": [_base64(keys) for keys in jwks],
                "anchors": _base64(anchors.encode()),
                "nonce": nonce.hex(),
                "devices": None,
            }
            return recorder.check(step, lambda: original(data, jwks=jwks, anchors=anchors, at=at, nonce=nonce))

        return made

    def devices(original: Any) -> Any:
        def made(self: VerifiedNras, serials: Any) -> None:
            step = {**recorder.steps.pop(), "devices": [serial.to_bytes(20).hex() for serial in serials]}
            recorder.results.pop()
            recorder.check(step, lambda: original(self, serials))

        return made

    def agreement(original: Any) -> Any:
        def made(self: VerifiedNras) -> None:
            step = recorder.steps.pop()
            recorder.results.pop()
            recorder.check(step, lambda: original(self))

        return made

    def log(original: Any) -> Any:
        def made(data: bytes, values: Any) -> None:
            registers = {str(register.index): value.hex() for register, value in values.items()}
            step = {"op": "event-log", "log": _base64(data), "bank": "sha256", "registers": registers, "whole": True}
            recorder.check(step, lambda: original(data, values))

        return made

    def report(original: Any) -> Any:
        def made(item: Any, trusted: Any, at: Any, nonce: bytes) -> None:
            step = {
                "op": "gpu-report",
                "at": strict.time_encode(at),
                "report": _base64(item.report),
                "chain": [_base64(each) for each in item.chain],
                "anchors": _base64(trusted.encode()),
                "nonce": nonce.hex(),
            }
            recorder.check(step, lambda: original(item, trusted, at, nonce))

        return made

    def look(original: Any) -> Any:
        def made(world: Any, log: Any, seen: Any) -> Any:
            files = sorted(path for path in (log / "checkpoint", *log.rglob("tile/**/*")) if path.is_file())
            shown = [{"name": str(path.relative_to(log)), "content": _base64(path.read_bytes())} for path in files]
            step = {
                "op": "watch",
                "at": strict.time_encode(world.clock.at),
                "key": world.ledger.key.vkey,
                "files": shown,
            }
            return recorder.check(step, lambda: original(world, log, seen))

        return made

    def pool(original: Any) -> Any:
        def made(self: Spots, given: Any) -> int:
            recorder.pooled(_base64(given.to_json()))
            return original(self, given)  # type: ignore[no-any-return]

        return made

    return [
        (corpus.bundle.Exported, "verify", bundle),
        (corpus.nras, "verify_nras", nras),
        (VerifiedNras, "require_devices", devices),
        (VerifiedNras, "require_agreement", agreement),
        (corpus.logs, "compare", log),
        (corpus.ledger, "look", look),
        (corpus.freshness, "report_over", report),
        (Spots, "add", pool),
    ]


def _base64(data: bytes) -> str:
    return strict.base64_encode(data)


def _public(key: Any) -> str:
    return _base64(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
