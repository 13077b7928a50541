"""The scheduler that keeps a module's tests together, as far as ours changes it."""

from collections import OrderedDict

import pytest
from xdist.remote import Producer
from xdist.workermanage import WorkerController

class LoadScopeScheduling:
    workqueue: OrderedDict[str, dict[str, bool]]
    assigned_work: dict[WorkerController, dict[str, dict[str, bool]]]

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None: ...
    @property
    def nodes(self) -> list[WorkerController]: ...
    def schedule(self) -> None: ...
    def _split_scope(self, nodeid: str) -> str: ...
    def _assign_work_unit(self, node: WorkerController) -> None: ...
