"""Writes down what a case tells the verifier, step by step: the bytes that go in, what it drew, what came of it.

Cases are functions that drive the product (:mod:`corpus`). While a :class:`Recorder` is in place, every call at which
bytes from outside enter is noted, in the form in which another verifier can be told the same
(:mod:`weighbridge.verifier.conformance.steps`). Where a case shows something that no step says, it is not portable,
and :class:`NotPortable` says why.
"""

# ruff: noqa: ANN401 - what stands in the place of a function has whatever types that one has
from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.verifier.challenge import Chance
from weighbridge.verifier.conformance.result import Result, accepted, enrolled, of_answer, of_error
from weighbridge.verifier.core import Answer, Opened, Resumed, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from forge.probing import Probe
    from weighbridge.policy.policy_set import PolicyFiles
    from weighbridge.proto.enrolment import EnrolmentChallenge
    from weighbridge.verifier.appraisal import Appraiser
    from weighbridge.verifier.reference_watch import ReferenceWatch

ROOT = sha256(b"the root of a ledger that nothing was entered into")
"""In every challenge, in the place of the ledger's root."""
_SESSION_SIZE = 16


class NotPortable(Exception):
    """Why a case cannot be told in steps."""


class Noted(Chance):
    """What a verifier draws, written down."""

    def __init__(self) -> None:
        self.drawn: list[bytes] = []
        self.is_probed = False

    def token(self, size: int) -> bytes:
        if self.is_probed:
            # Nothing comes of it.
            return bytes(range(size))
        self.drawn.append(super().token(size))
        return self.drawn[-1]

    def dated(self, root: bytes) -> bytes:
        del root
        return ROOT


class Recorder:
    """The steps of one case so far, and what came of each."""

    def __init__(self, probe: Probe | None = None) -> None:
        self.probe = probe
        self.steps: list[dict[str, Any]] = []
        self.results: list[Result] = []
        self.refusal: str | None = None
        self._verifiers: list[Verifier] = []
        self._stores: list[object] = []
        self._ledgers: list[object] = []
        self._chances: dict[int, Noted] = {}
        self._depth = 0
        # Owners' files: who looks at them, for which appraiser and which verifier, and what was in them.
        self._watches: dict[int, ReferenceWatch] = {}
        self._followed: dict[int, ReferenceWatch | None] = {}
        self._seen: dict[Path, bytes] = {}

    def note(self, step: dict[str, Any], result: Result) -> None:
        """One more step, and what came of it."""
        self.steps.append(step)
        self.results.append(result)

    # -- verifiers -----------------------------------------------------------------------------------------------------

    def started(self, verifier: Verifier, given: dict[str, Any], chance: Noted) -> None:
        """A verifier has come up."""
        self._verifiers.append(verifier)
        self._chances[id(verifier)] = chance
        if given["store"] not in self._stores:
            if self._ledgers and given["archive"].ledger is self._ledgers[-1]:
                self.refusal = (
                    "an operator puts the database of sessions back and leaves the log as it is: "
                    "which of the two holds what is this verifier's own affair, and no step says it"
                )
            self._stores.append(given["store"])
            self._ledgers.append(given["archive"].ledger)
        if given.get("others") or given.get("attesters"):
            self.refusal = (
                "one verifier serves two tenants, each by requirements and anchors of its own, and a `start` has one"
            )
        appraiser = given["appraiser"]
        watch = self._watches.get(id(appraiser))
        self._followed[id(verifier)] = watch
        if watch is None and len(appraiser.files) != 1:
            self.refusal = "several policies"
            return
        files = next(iter(appraiser.files.values())) if watch is None else _own_policy(watch)
        reference = appraiser.reference if watch is None else watch._own
        baselines = appraiser.baselines.files.values() if watch is None else ()
        keys = given["keys"]
        self.note(
            {
                "op": "start",
                "verifier": len(self._verifiers) - 1,
                "state": self._stores.index(given["store"]),
                "at": strict.time_encode(given["clock"].now()),
                "keys": {"signing": _private(keys.signing), "ledger": _private(keys.ledger)},
                "root": ROOT.hex(),
                "requirements": _base64(given["requirements"].encode()),
                "anchors": _base64(given["anchors"].encode()),
                "reference": _base64(reference.to_json()),
                "policy": _policy(files),
                # Operators may add to them until the first session; see :meth:`finished`.
                "models": appraiser.manifests,
                "collateral": _base64(appraiser.published.collateral.encode()),
                "publishers": _base64(appraiser.published.anchors.encode()),
                "baselines": [_base64(data) for data in baselines],
                "owners": None if watch is None else self._owners(watch),
            },
            accepted(),
        )

    def call(self, verifier: Verifier, step: dict[str, Any], make: Callable[[], Any]) -> Any:
        """One call of a verifier, which is already in ``step`` but for what was drawn."""
        self._put(verifier)
        chance = self._chances[id(verifier)]
        chance.drawn.clear()
        step["verifier"] = self._verifiers.index(verifier)
        step["at"] = strict.time_encode(verifier._clock.now())
        answer, result, error = None, accepted(), None
        self._depth += 1
        try:
            answer = make()
        except WeighbridgeError as refused:
            error, result = refused, of_error(refused)
        finally:
            self._depth -= 1
        match answer:
            case Answer():
                result = of_answer(answer)
            case Opened():
                result = enrolled()
            case _:
                pass
        if step["op"] != "close":
            step["issue"] = _issue(chance.drawn, answer)
        self.note(step, result)
        if error is not None:
            raise error
        return answer

    def probed(self, verifier: Verifier, make: Callable[[Probe], None]) -> None:
        """What is about to be judged, with changes that have to be refused."""
        if self.probe is not None:
            chance = self._chances[id(verifier)]
            chance.is_probed = True
            self._depth += 1
            try:
                make(self.probe)
            finally:
                self._depth -= 1
                chance.is_probed = False

    # -- everything else -----------------------------------------------------------------------------------------------

    def check(self, step: dict[str, Any], make: Callable[[], Any], *, refusals_only: bool = False) -> Any:
        """One call of a function that no session is about. What others call on their way is not a step."""
        if self._depth:
            return make()
        self._depth += 1
        try:
            made = make()
        except WeighbridgeError as error:
            self.note(step, of_error(error))
            raise
        finally:
            self._depth -= 1
        if not refusals_only:
            self.note(step, accepted())
        return made

    def opened(self, watch: ReferenceWatch, at: datetime, make: Callable[[], Appraiser]) -> Appraiser:
        """A verifier is about to judge by owners' files; where they are not taken, it does not come up."""
        try:
            appraiser = make()
        except WeighbridgeError as error:
            # As the verifier that was there before, but for the files.
            template = next(step for step in reversed(self.steps) if step["op"] == "start")
            step = {**template, "verifier": len(self._verifiers), "at": strict.time_encode(at)}
            own = {"reference": _base64(watch._own.to_json()), "policy": _policy(_own_policy(watch)), "baselines": []}
            self.note({**step, **own, "owners": self._owners(watch)}, of_error(error))
            raise
        self._watches[id(appraiser)] = watch
        return appraiser

    def refreshed(self, verifier: Verifier, make: Callable[[], None]) -> None:
        """An operator has it look at its owners' files."""
        self._put(verifier)
        number, at = self._verifiers.index(verifier), strict.time_encode(verifier._clock.now())
        make()
        self.note({"op": "refresh", "verifier": number, "at": at}, accepted())

    def _owners(self, watch: ReferenceWatch) -> dict[str, Any]:
        for path in (*watch._files, *watch._policies._files):
            self._seen[path] = path.read_bytes()
        return {
            "sets": [_file(path) for path in watch._files],
            "policies": [_file(path) for path in watch._policies._files],
            "anchors": _base64(watch._anchors.encode()),
            "baselines": watch._baselines is not None,
        }

    def _put(self, verifier: Verifier) -> None:
        """What has become of owners' files since they were last looked at."""
        watch = self._followed.get(id(verifier))
        for path in () if watch is None else (*watch._files, *watch._policies._files):
            if path.read_bytes() != self._seen[path]:
                self._seen[path] = path.read_bytes()
                number = self._verifiers.index(verifier)
                self.note({"op": "put", "verifier": number, "file": _file(path)}, accepted())

    def operated(self, step: dict[str, Any], store: object) -> None:
        """An operator's act upon a state."""
        if store not in self._stores:
            self._stores.append(store)
        self.note({**step, "state": self._stores.index(store)}, accepted())

    def pooled(self, pool: str) -> None:
        """An operator imports spot challenges into the one state that there is."""
        if len(self._stores) != 1:
            self.refusal = "spot challenges of several verifiers"
        self.note({"op": "spot-pool", "state": 0, "pool": pool}, accepted())

    def finished(self, result: Result) -> list[dict[str, Any]]:
        """The steps of the whole case, of which ``result`` came.

        Raises:
            NotPortable: they do not tell what it shows.
        """
        if self.refusal is not None:
            raise NotPortable(self.refusal)
        if not self.steps:
            raise NotPortable("no step of it enters by a call that is noted")
        if self.results[-1] != result:
            raise NotPortable("what it shows does not come of its last step")
        for step in self.steps:
            if step["op"] == "start" and not isinstance(step["models"], list):
                step["models"] = [_base64(model.pack()) for model in step["models"].values()]
        if self.steps[-1]["op"] not in _OF_SESSIONS:
            # It stands for itself: how it was made is nobody's business. A monitor remembers what it has seen before.
            kept = [step["op"] == "watch" == self.steps[-1]["op"] for step in self.steps[:-1]] + [True]
            self.steps, self.results = list(compress(self.steps, kept)), list(compress(self.results, kept))
        return self.steps


_OF_SESSIONS = {"start", "open", "prove", "window", "resume", "close"}


def _issue(drawn: list[bytes], answer: EnrolmentChallenge | Opened | Answer | Resumed | None) -> dict[str, str | None]:
    found: dict[str, str | None] = {"session": None, "random": None, "secret": None, "challenge": None}
    names = iter(("random", "secret"))
    for value in drawn:
        found["session" if len(value) == _SESSION_SIZE and found["session"] is None else next(names)] = value.hex()
    challenge = None if answer is None else answer.challenge
    found["challenge"] = None if challenge is None else challenge.hex()
    return found


def _own_policy(watch: ReferenceWatch) -> PolicyFiles:
    own = watch._policies._own
    return () if own is None else own.files


def _policy(files: PolicyFiles) -> list[dict[str, str]]:
    return [{"name": name, "content": _base64(content)} for name, content in files]


def _file(path: Path) -> dict[str, str]:
    return {"name": path.name, "content": _base64(path.read_bytes())}


def _base64(data: bytes) -> str:
    return strict.base64_encode(data)


def _private(key: Any) -> str:
    return _base64(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
