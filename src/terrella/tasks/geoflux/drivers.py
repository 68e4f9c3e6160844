"""Offset-time analysis: which driver is known to matter, and for how many days.

Wei et al. 2018, doi:10.1029/2018SW001829: Spearman correlation of log10 flux(t) with a driver at
t - k days. Days are far from independent, so the p-values shift whole blocks of time instead of
taking each day as a witness of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from terrella.plot import figure
from terrella.tasks.geoflux.daily import DAY_H, daily_log_flux, subsolar_distance, window_mean

BLOCK = 27  # days
DRIVERS = {
    "flux": "log10 flux", "flux_08": "log10 flux >0.8 MeV", "V": "solar wind speed",
    "n": "density", "Pdyn": "dynamic pressure", "T": "temperature", "Bz": "Bz GSM", "Bt": "|B|",
    "r0": "subsolar distance", "Kp": "Kp", "SYM-H": "SYM-H", "AE": "AE", "Hp": "Hp",
}  # fmt: skip


def daily(hourly: Mapping[str, np.ndarray], ends: np.ndarray, need: int = 18) -> pd.DataFrame:
    """Daily means of every driver there is, and log10 of the daily flux, one row a day."""
    more = dict(hourly)
    if {"Bz", "Pdyn"} <= set(hourly):
        more["r0"] = subsolar_distance(hourly["Bz"], hourly["Pdyn"])
    table = {}
    for name in DRIVERS:
        if name not in more:
            continue
        if name.startswith("flux"):
            table[name] = daily_log_flux(more[name], ends, need)
        else:
            table[name] = window_mean(more[name], ends, DAY_H, need // 2)
    return pd.DataFrame(table)


def analyse(
    days: pd.DataFrame, offsets: int = 10, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Correlation of log10 flux with each driver at offsets 0..N days.

    Args:
        days: from ``daily``, consecutive days.
        offsets: N.
        draws: of the block bootstrap; intervals are its 2.5..97.5 %, p-values count how often
            blocks of flux paired with other blocks of the driver correlate as much.
        seed: of the draws.

    Returns:
        One row a driver and offset: rho, lo, hi, p, n.
    """
    target = days["flux"].to_numpy()
    rows = []
    for name in days:
        driver = days[name].to_numpy()
        for k in range(offsets + 1):
            if name == "flux" and k == 0:
                continue
            y, x = target[k:], driver[: len(driver) - k]
            both = np.isfinite(x) & np.isfinite(y)
            rng = np.random.default_rng(seed)
            rows.append({"driver": name, "offset_days": k, **_rank(x, y, both, rng, draws)})
    return pd.DataFrame(rows)


def _rank(
    x: np.ndarray, y: np.ndarray, both: np.ndarray, rng: np.random.Generator, draws: int
) -> dict[str, float]:
    if both.sum() < 3 * BLOCK:
        return {"rho": np.nan, "lo": np.nan, "hi": np.nan, "p": np.nan, "n": int(both.sum())}
    block = (np.arange(len(x)) // BLOCK)[both]
    a, b = (rankdata(v[both]) for v in (x, y))
    a, b = ((v - v.mean()) / v.std() for v in (a, b))
    rho = float((a * b).mean())
    labels, index = np.unique(block, return_inverse=True)
    count = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=draws)
    weight = count[:, index]
    total = weight.sum(1)
    means = [weight @ v / total for v in (a, b, a * b, a * a, b * b)]
    ma, mb, mab, maa, mbb = means
    drawn = (mab - ma * mb) / np.sqrt((maa - ma**2) * (mbb - mb**2))
    # Under the null a driver's memory stays and its timing goes: shift it round the record.
    least = min(BLOCK, len(a) // 4)
    shift = rng.integers(least, len(a) - least, size=draws)
    spectrum = np.fft.irfft(np.fft.rfft(a).conj() * np.fft.rfft(b), len(a)) / len(a)
    p = float((1 + (np.abs(spectrum[shift]) >= abs(rho)).sum()) / (1 + draws))
    lo, hi = np.quantile(drawn, [0.025, 0.975])
    return {"rho": rho, "lo": float(lo), "hi": float(hi), "p": p, "n": int(both.sum())}


def history(table: pd.DataFrame, share: float = 0.5, strong: float = 0.4) -> int:
    """Days of history that the analysis implies.

    The longest offset, over the drivers that peak at ``strong`` or more, at which correlation
    still has ``share`` of its peak and p < 0.05.
    """
    longest = 1
    for _, part in table.dropna(subset=["rho"]).groupby("driver"):
        size = part["rho"].abs()
        if size.max() < strong:
            continue
        good = part[(size >= share * size.max()) & (part["p"] < 0.05)]
        # Only what hangs together from the peak on: the next rotation is not a longer memory.
        run = good["offset_days"].to_numpy()
        if len(run):
            peak = int(part["offset_days"].to_numpy()[size.to_numpy().argmax()])
            last = peak
            while last + 1 in run:
                last += 1
            longest = max(longest, min(last, 2 * BLOCK))
    return longest


def heatmap(table: pd.DataFrame) -> Any:
    """Correlation by driver and offset; a dot marks p < 0.05."""
    cells = table.set_index(["driver", "offset_days"])
    grid = cells["rho"].unstack()  # noqa: PD010
    order = [n for n in DRIVERS if n in grid.index]
    grid = grid.loc[order]
    p = cells["p"].unstack().loc[order]  # noqa: PD010
    made, axis = figure(1, size=(1.8 + 0.55 * grid.shape[1], 1.4 + 0.33 * len(grid)))
    picture = axis.imshow(grid.to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for i, j in np.argwhere(grid.notna().to_numpy()):
        rho = float(grid.iloc[i, j])
        text = f"{rho:.2f}" + ("•" if p.iloc[i, j] < 0.05 else "")
        axis.text(j, i, text, ha="center", va="center", fontsize=6,
                  color="white" if abs(rho) > 0.6 else "black")  # fmt: skip
    axis.set_xticks(range(grid.shape[1]), grid.columns)
    axis.set_yticks(range(len(grid)), [DRIVERS[n] for n in grid.index])
    axis.grid(False)
    axis.set_xlabel("offset: days before the flux")
    axis.set_title("Spearman correlation with log10 daily flux (• p < 0.05, blocks of time)")
    made.colorbar(picture, ax=axis, label="rho")
    return made
