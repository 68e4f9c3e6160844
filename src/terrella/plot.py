"""What figures share: style, files, colours and the L-MLT dial."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from terrella import files

# Okabe & Ito's colours, distinguishable with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
STYLE: Any = {
    "figure.dpi": 130,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "figure.constrained_layout.use": True,
}


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Draw in the house style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def inside(*args: Any, **kwargs: Any) -> Any:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


@styled
def figure(rows: int = 1, *, size: tuple[float, float] = (8.0, 6.0), **grid: Any) -> Any:
    """A figure and its axes in the house style, drawn without a display.

    Args:
        rows: stacked panels.
        size: inches.
        **grid: passed to ``Figure.subplots``.

    Returns:
        (figure, axes).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=size)
    FigureCanvasAgg(made)
    return made, made.subplots(rows, **grid)


def save(made: Any, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    with files.whole(path) as scratch:
        made.savefig(scratch, dpi=150)
    return path


def time_axis(axis: Any) -> None:
    """Label a time axis without repeating the date."""
    from matplotlib import dates

    make: Any = dates  # matplotlib leaves these untyped
    locator = make.AutoDateLocator(minticks=4, maxticks=9)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(make.ConciseDateFormatter(locator))


def dial(axis: Any, rings: Sequence[float], top: float) -> None:
    """Make polar axes an L-MLT dial: noon up, dusk left, L outwards.

    Args:
        axis: polar axes.
        rings: L of the labelled circles.
        top: outermost L.
    """
    axis.set_theta_zero_location("S")
    axis.set_theta_direction(1)
    axis.set_xticks(np.radians([0, 90, 180, 270]), ["00", "06", "12", "18"])
    axis.set_rgrids(list(rings), [f"L {r:g}" for r in rings], angle=135, fontsize=7)
    axis.set_rlim(0, top)


def angle(MLT: np.ndarray) -> np.ndarray:
    """Angle of a dial for MLT in hours."""
    return np.radians(15.0 * np.asarray(MLT, float))
