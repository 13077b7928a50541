# What verifier.telemetry.study.figures calls of matplotlib 3.10 and later; its own types are partly unknown.
from collections.abc import Mapping
from contextlib import AbstractContextManager

def rc_context(rc: Mapping[str, object]) -> AbstractContextManager[None]: ...
