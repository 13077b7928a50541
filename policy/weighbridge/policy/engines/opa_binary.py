"""OPA as the ``opa`` that somebody has installed: one process of ``opa eval`` for each decision.

Never downloaded, and found on the PATH or named. Only policies that have passed our checker are loaded, which regorus
parses for it. The process gets an empty environment (``OPA_EVAL_…`` would change what the command does), a session of
its own, limits on memory, CPU time and files, a deadline, and a directory that holds copies of the modules and nothing
else. What is not among the builtins that policies may call does not exist for it (``--capabilities``), so that nothing
reaches the network or is left to chance; time is the receipt time; errors of builtins are errors.

Slow: a process is started and every module compiled for each decision. For occasional second opinions.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import resource
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from weighbridge.policy.adapters.beside import beside
from weighbridge.policy.authoring.builtins import capabilities
from weighbridge.policy.checker.findings import CheckerFinding
from weighbridge.policy.engine import DEFAULT_LIMITS, Limits, Prepared
from weighbridge.policy.engines.loading import (
    checked,
    compiler_findings,
    findings_in,
    not_loaded,
    optional_rules,
    parsed,
)
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.process import WorkerCrashed, WorkerFault, WorkerRefused, WorkerTimeout
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.policy.engines.prepared import Evaluator
    from weighbridge.policy.policy_set import PolicyModule, PolicySet

__all__ = ["OpaBinaryEngine"]

# The first line of `opa version`.
_VERSION: Final = re.compile(rb"Version: ([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})")
_VERSION_SECONDS: Final = 5.0
# From 1.0 on, `opa` reads Rego as we mean it without being told.
_MAJOR: Final = 1
_REPLY_MAX: Final = 1 << 16
_CHUNK: Final = 1 << 16
_RESERVE: Final = 2 << 30  # what Go reserves for itself, in bytes
_EVAL: Final = (
    "eval",
    "--stdin-input",
    "--strict-builtin-errors",
    "--capabilities",
    "capabilities.json",
    "--format",
    "json",
)
_FAILED: Final = 2  # the status of `opa eval` on an error, which is in the answer


@final
class OpaBinaryEngine:
    """Evaluates policies with an ``opa`` that is installed.

    Args:
        program: its name on the PATH, or its path.

    Raises:
        EnvironmentFault: ``TOOL_MISSING``: there is none from 1.0 on; ``COMMAND_FAILED``: it says no version.
    """

    def __init__(self, program: str = "opa") -> None:
        found = shutil.which(program)
        if found is None:
            raise EnvironmentFault(
                Code.TOOL_MISSING,
                f"no {program} here",
                hint="install OPA 1.0 or newer from openpolicyagent.org; Weighbridge never downloads it",
            )
        self._program: str = str(Path(found).resolve())
        self._version: str = _version(self._program)

    @property
    def name(self) -> str:
        """``opa``."""
        return "opa"

    @property
    def version(self) -> str:
        """What ``opa version`` says, as ``OPA version``."""
        return f"OPA {self._version}"

    def check(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> tuple[CheckerFinding, ...]:
        """Everything that our checker has against ``policy``, and what OPA's compiler has.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: it does not parse, or OPA cannot compile it within the limits.
            EnvironmentFault: no process can be started.
        """
        worker, modules = parsed(policy, limits)
        worker.close()
        findings = findings_in(modules, policy.data)
        evaluations = _Evaluations(self._program, policy.modules, policy.document(), limits)
        try:
            evaluations.compile()
        except WorkerRefused as refused:
            findings += compiler_findings(str(refused), policy)
        except WorkerFault as fault:
            raise not_loaded(fault) from fault
        finally:
            evaluations.close()
        return findings

    def load(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> Prepared:
        """Check ``policy``, and lay it out for ``opa``. As many decisions run at once as threads ask for.

        Raises:
            PolicyDenied: ``POLICY_INVALID`` with file and line: it does not parse, our checker refuses it, or OPA does.
            EnvironmentFault: no process can be started, or no file written.
        """
        optional = optional_rules(checked(policy, limits))
        evaluations = _Evaluations(self._program, policy.modules, policy.document(), limits)
        try:
            evaluations.compile()
        except WorkerFault as fault:
            evaluations.close()
            raise not_loaded(fault) from fault
        except BaseException:
            evaluations.close()
            raise
        prepared = PreparedPolicy(
            evaluations, policy=policy, limits=limits, optional=optional, engine=(self.name, self.version)
        )
        return beside(prepared, policy, limits)

    def bench(
        self, modules: Sequence[PolicyModule], data: strict.JsonObject, limits: Limits = DEFAULT_LIMITS
    ) -> Evaluator:
        """``modules`` and ``data`` laid out, past the checker: for tools only.

        Raises:
            EnvironmentFault: no file can be written.
        """
        return _Evaluations(self._program, modules, data, limits)


@final
class _Evaluations:
    """A directory with a policy in it, and a process for each evaluation."""

    def __init__(self, program: str, modules: Sequence[PolicyModule], data: strict.JsonObject, limits: Limits) -> None:
        self._program: str = program
        self._limits: Limits = limits
        # By names of our own: in an author's, a colon would be a prefix, and a slash a directory.
        self._names: dict[str, str] = {f"module{n}.rego": module.name for n, module in enumerate(modules)}
        self._data: list[str] = [argument for name in (*self._names, "data.json") for argument in ("--data", name)]
        self._closed: bool = False
        try:
            self._place: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory(prefix="weighbridge-opa-")
            folder = Path(self._place.name)
            for name, module in zip(self._names, modules, strict=True):
                _ = (folder / name).write_bytes(module.text)
            _ = (folder / "data.json").write_bytes(strict.json_encode(data))
            _ = (folder / "capabilities.json").write_bytes(strict.json_encode(capabilities()))
        except OSError as error:
            raise EnvironmentFault(Code.COMMAND_FAILED, f"cannot lay the policy out for opa: {error}") from error

    def compile(self) -> None:
        """Have OPA compile every module.

        Raises:
            WorkerFault: it does not.
        """
        _ = self._answer(b"true", b"{}", self._limits.load_seconds)

    def evaluate(self, query: bytes, document: bytes, *, now_ns: int) -> bytes:
        """As every evaluator."""
        if self._closed:
            raise RuntimeError("the prepared policy is closed")
        return self._answer(query + f" with time.now_ns as {now_ns}".encode(), document, self._limits.decide_seconds)

    def close(self) -> None:
        """Remove the directory. May be called again."""
        self._closed = True
        self._place.cleanup()

    def _answer(self, query: bytes, document: bytes, seconds: float) -> bytes:
        command = [self._program, *_EVAL, *self._data, query.decode()]
        run = _run(command, document, self._place.name, limits=self._limits, seconds=seconds)
        if run.status == 0:
            return run.output
        if run.status == _FAILED:
            raise WorkerRefused(self._errors(run.output))
        raise WorkerCrashed(f"opa ended with status {run.status}")

    def _errors(self, output: bytes) -> str:
        """The errors in an answer, one in a line, in the form of OPA's library."""
        try:
            match strict.json_decode(output, what="opa's answer"):
                case {"errors": [*errors]}:
                    return "\n".join(self._error(error) for error in errors)
                case _:
                    pass
        except MalformedEvidence:
            pass
        raise WorkerCrashed(f"opa ended with status {_FAILED}, and without an answer")

    def _error(self, error: strict.JsonValue) -> str:
        match error:
            case {"message": str(message), "location": {"file": str(file), "row": int(row)}, **others}:
                return f"{self._names.get(file, 'query')}:{row}: {others.get('code', 'error')}: {message}"
            case {"message": str(message)}:
                return message
            case _:
                return "opa reports an error without words"


@dataclass(frozen=True, slots=True)
class _Run:
    """How a process ended, and what it wrote on its standard output."""

    status: int
    output: bytes


def _version(program: str) -> str:
    limits = Limits(reply_max=_REPLY_MAX)
    try:
        run = _run([program, "version"], b"", "/", limits=limits, seconds=_VERSION_SECONDS)
    except WorkerFault as fault:
        raise EnvironmentFault(Code.COMMAND_FAILED, f"opa version: {fault}", where=program) from fault
    found = _VERSION.fullmatch(run.output.partition(b"\n")[0]) if run.status == 0 else None
    if found is None:
        raise EnvironmentFault(Code.COMMAND_FAILED, "this is no opa: it says no version", where=program)
    parts = [strict.decimal(part.decode(), what="version") for part in found.groups()]
    version = ".".join(map(str, parts))
    if parts[0] < _MAJOR:
        raise EnvironmentFault(
            Code.TOOL_MISSING, "this opa is too old", where=program, expected=f">= {_MAJOR}.0", got=version
        )
    return version


def _run(command: Sequence[str], request: bytes, folder: str, *, limits: Limits, seconds: float) -> _Run:
    """Run a program to its end.

    Raises:
        WorkerTimeout: it has not ended after ``seconds``; it has been killed.
        WorkerCrashed: it answers with more than ``limits.reply_max`` bytes; it has been killed.
        EnvironmentFault: ``COMMAND_FAILED``: it cannot be started.
    """
    deadline = time.monotonic() + seconds
    try:
        process = subprocess.Popen(  # noqa: S603 - a fixed program, no shell
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentFault(Code.COMMAND_FAILED, f"cannot start opa: {error}", where=command[0]) from error
    try:
        _limit(process.pid, limits.memory + _RESERVE, math.ceil(seconds) + 1)
        output = _converse(process, request, deadline=deadline, reply_max=limits.reply_max)
        status = process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise WorkerTimeout("no answer before the deadline") from error
    finally:
        if process.poll() is None:
            # With whatever it may have started: the session is its own, and its leader is not reaped yet.
            os.killpg(process.pid, signal.SIGKILL)
            _ = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
    return _Run(status, output)


def _limit(pid: int, memory: int, cpu: int) -> None:
    bounds = ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, cpu), (resource.RLIMIT_FSIZE, 0))
    with contextlib.suppress(ProcessLookupError):
        for kind, value in (*bounds, (resource.RLIMIT_CORE, 0)):
            _ = resource.prlimit(pid, kind, (value, value))


def _converse(process: subprocess.Popen[bytes], request: bytes, *, deadline: float, reply_max: int) -> bytes:
    """Write the request and read the answer, whichever the process is ready for."""
    if process.stdin is None or process.stdout is None:  # pragma: no cover - both are pipes
        raise RuntimeError("the process has no pipes")
    left, answer = memoryview(request), bytearray()
    os.set_blocking(process.stdin.fileno(), False)
    with selectors.DefaultSelector() as ready:
        _ = ready.register(process.stdout, selectors.EVENT_READ)
        _ = ready.register(process.stdin, selectors.EVENT_WRITE)
        while True:
            wait = deadline - time.monotonic()
            events = ready.select(wait) if wait > 0 else []
            if not events:
                raise WorkerTimeout("no answer before the deadline")
            for key, _event in events:
                if key.fileobj is process.stdin:
                    try:
                        left = left[os.write(key.fd, left[:_CHUNK]) :]
                    except BrokenPipeError:
                        left = left[len(left) :]  # it does not read on; what it answers is looked at all the same
                    if not left:
                        _ = ready.unregister(process.stdin)
                        process.stdin.close()
                    continue
                more = os.read(key.fd, _CHUNK)
                if not more:
                    return bytes(answer)
                answer += more
                if len(answer) > reply_max:
                    raise WorkerCrashed(f"opa answers with more than {reply_max} bytes")
