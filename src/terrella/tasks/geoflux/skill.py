"""Figure of skill: PE by year and lead with intervals, and coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from terrella.plot import COLOURS, figure

MARKS = ("o", "s", "^", "D", "v", "P", "X", "<")


def draw(scores: pd.DataFrame) -> Any:
    """PE of every model by year and lead, and the coverage of its 80 % intervals.

    Args:
        scores: rows of ``scores.csv`` of this task.

    Raises:
        ValueError: it has no PE.
    """
    pe = scores[scores["metric"] == "PE"]
    if pe.empty:
        raise ValueError("no PE in it")
    models = list(dict.fromkeys(pe["model"]))
    leads = sorted(pe["lead"].unique())
    made, axes = figure(2, size=(3.1 * len(leads) + 1.5, 6.4), ncols=len(leads), squeeze=False,
                        sharey="row", sharex="col")  # fmt: skip
    for column, lead in zip(axes.T, leads, strict=True):
        for axis, metric in zip(column, ("PE", "coverage80"), strict=True):
            part = scores[(scores["metric"] == metric) & (scores["lead"] == lead)]
            groups = sorted(map(str, part["group"].unique()))
            for k, model in enumerate(models):
                rows = part[part["model"] == model]
                rows = rows.set_index(rows["group"].astype(str))
                _points(axis, rows, groups, k, len(models), model)
            axis.set_xticks(range(len(groups)), groups)
            if metric == "coverage80":
                axis.axhline(0.8, color="0.4", lw=0.8)
                axis.set_ylim(0.5, 1.0)
            else:
                axis.set_title(f"{int(float(lead))} day{'s' if float(lead) > 1 else ''} ahead")
                axis.set_ylim(-0.3, 1.0)
    axes[0, 0].set_ylabel("prediction efficiency, log10 flux")
    axes[1, 0].set_ylabel("coverage of 80 % intervals")
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4,
                fontsize=8)  # fmt: skip
    return made


def _points(axis: Any, rows: pd.DataFrame, groups: list[str], k: int, n: int, model: str) -> None:
    at = np.arange(len(groups)) + (k - (n - 1) / 2) * 0.8 / n
    rows = rows.reindex(groups)
    value = rows["value"].to_numpy(float)
    error = np.abs(rows[["lo", "hi"]].to_numpy(float).T - value)
    axis.errorbar(at, value, np.nan_to_num(error), fmt=MARKS[k % 8], color=COLOURS[k % 7], ms=4,
                  lw=1, label=model)  # fmt: skip
