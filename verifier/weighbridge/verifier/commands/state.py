"""A verifier's state directory, for the commands that look into one; what it needs, only the server has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.commands.outcome import no_state

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.verifier.deployment import Deployment
    from weighbridge.verifier.store import Store

__all__ = ["deployment_class", "open_store"]


def deployment_class() -> type[Deployment]:
    """The state directory's class.

    Raises:
        EnvironmentFault: ``TOOL_MISSING`` where its dependencies are not installed.
    """
    try:
        from weighbridge.verifier.deployment import Deployment as Opened  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING, f"{error.name} is not installed", hint="pip install 'weighbridge[server]'"
        ) from error
    return Opened


def open_store(state: Path) -> Store:
    """The session store of a state directory, which may be serving.

    Raises:
        EnvironmentFault: ``TOOL_MISSING``; ``FILE_UNREADABLE`` where ``state`` is no verifier's; or as
            :meth:`.Store.open`.
    """
    deployment_class()
    from weighbridge.verifier.database import SqliteAddress  # noqa: PLC0415 - needs what only the server has
    from weighbridge.verifier.database.named import named_in  # noqa: PLC0415
    from weighbridge.verifier.store import Store as Opened  # noqa: PLC0415

    address = named_in(state)
    if isinstance(address, SqliteAddress) and not address.path.is_file():
        raise no_state(state)
    return Opened.open(address)
