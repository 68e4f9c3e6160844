"""Confusion tables of both heads as a figure beside the certificate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from terrella.learn.evaluate import Evaluation
from terrella.plot import figure, styled
from terrella.tasks.precursor.judge import confusion
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE


def figures(found: Evaluation) -> Mapping[str, Any]:
    """The network's confusion tables over all rows that are not aside."""
    return {"confusion": _draw(found)}


@styled
def _draw(found: Evaluation) -> Any:
    table = found.network[~found.network["aside"].to_numpy(bool)]
    made, axes = figure(1, size=(9.5, 4.4), ncols=2)
    for axis, (name, classes) in zip(axes, {"magnitude": MAGNITUDE, "azimuth": AZIMUTH}.items(),
                                     strict=True):  # fmt: skip
        count = confusion(table, name, len(classes), np.ones(len(table)))
        share = count / np.maximum(count.sum(1, keepdims=True), 1)
        shown = axis.imshow(share, cmap="cividis", vmin=0, vmax=1)
        for row, column in np.argwhere(count > 0):
            tone = "black" if share[row, column] > 0.6 else "white"
            axis.text(column, row, f"{count[row, column]:.0f}", ha="center", va="center",
                      fontsize=7, color=tone)  # fmt: skip
        axis.set_xticks(range(len(classes)), classes, rotation=45)
        axis.set_yticks(range(len(classes)), classes)
        axis.set(xlabel="given", ylabel="truth", title=name)
        axis.grid(False)
    made.suptitle(found.split, fontsize=9)
    made.colorbar(shown, ax=list(axes), label="share of the true class")
    return made
