from io import BytesIO
from typing import Literal, overload

from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

class Figure:
    def __init__(self, figsize: tuple[float, float], *, layout: ConstrainedLayoutEngine) -> None: ...
    @overload
    def subplots(
        self, nrows: Literal[1], ncols: Literal[2], *, width_ratios: tuple[float, float]
    ) -> tuple[Axes, Axes]: ...
    @overload
    def subplots(
        self, nrows: Literal[3], ncols: Literal[1], *, sharex: bool, height_ratios: tuple[float, float, float]
    ) -> tuple[Axes, Axes, Axes]: ...
    def text(self, x: float, y: float, s: str, **kwargs: object) -> object: ...
    def savefig(self, fname: BytesIO, *, format: str, dpi: float, metadata: dict[str, str | None]) -> None: ...
