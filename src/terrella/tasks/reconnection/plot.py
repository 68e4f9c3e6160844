"""The stacked panels of a crossing, as a space physicist lays them out, one figure a probe."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from terrella.plot import COLOURS, figure, save, time_axis
from terrella.types import Product

AXES = ("x", "y", "z")
XYZ = (COLOURS[0], COLOURS[2], COLOURS[1])
# Inflows blue, outflows orange and red, separatrices grey and black: sides differ by lightness too.
REGION = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#555555", "#AAAAAA")
MOST = 4000  # points a line; a page has no more


def plot(product: Product, path: Path) -> list[Path]:
    """Draw B, E, n, v_i, v_e, J, J.E', electron spectrum and the region bar with its confidence.

    Args:
        product: of one job.
        path: stem; with several probes each has a figure of its own, ``.mmsN.png``.

    Returns:
        The files written.
    """
    series = product.series
    probes = np.unique(series["probe"].values)
    written = []
    for probe in probes:
        part = series.isel(time=np.flatnonzero(series["probe"].values == probe))
        suffix = f".mms{probe}.png" if len(probes) > 1 else ".png"
        written.append(save(panels(part, int(probe), product), path.with_name(path.name + suffix)))
    return written


def panels(part: xr.Dataset, probe: int, product: Product) -> Any:
    """The figure of one probe."""
    step = max(len(part["time"]) // MOST, 1)
    thin = part.isel(time=slice(None, None, step))
    drawn = [draw for name, draw in PANELS.items() if name in part]
    lines = [d for d in drawn if d is not _spectrum]
    ratios = [*(1.0 for _ in drawn), 0.55, 0.8]
    made, axes = figure(
        len(drawn) + 2, size=(8.5, 1.15 * len(drawn) + 2.4), sharex=True, height_ratios=ratios,
        squeeze=False,
    )  # fmt: skip
    axes = axes[:, 0]
    for draw, axis in zip(drawn, axes, strict=False):
        draw(axis, thin)
        if draw in lines:
            axis.axhline(0, color="0.6", lw=0.5, zorder=0)
            axis.yaxis.set_major_locator(_few())
    bar(axes[-2], part)
    _confidence(axes[-1], part)
    for axis in axes:
        axis.set_xlim(part["time"].values[0], part["time"].values[-1])
    for letter, axis in zip("abcdefghijkl", axes, strict=False):
        axis.text(0.006, 0.93, f"({letter})", transform=axis.transAxes, va="top", fontsize=8,
                  bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1.5})  # fmt: skip
    time_axis(axes[-1])
    axes[-1].set_xlabel("UTC")
    made.align_ylabels(axes)
    scale = product.provenance.get("scale", {}).get(f"mms{probe}", {})
    note = (
        f"   $B_0$ {scale['b0_nT']:.1f} nT, $n_0$ {scale['n0_cm3']:.2f} cm$^{{-3}}$ "
        f"({scale['origin']})"
        if np.isfinite(scale.get("b0_nT", np.nan))
        else ""
    )
    made.suptitle(f"MMS{probe}  {str(part['time'].values[0])[:19]}{note}", fontsize=10)
    return made


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3, symmetric=False)


def _vector(axis: Any, part: xr.Dataset, name: str, label: str, symbol: str) -> None:
    for k in range(3):
        axis.plot(
            part["time"], part[name][:, k], color=XYZ[k], lw=0.8, label=f"${symbol}_{AXES[k]}$"
        )
    axis.set_ylabel(label)
    _legend(axis)


def _legend(axis: Any) -> None:
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.0)


def _field(axis: Any, part: xr.Dataset) -> None:
    length = np.linalg.norm(part["b_gsm"].values, axis=1)
    axis.plot(part["time"], length, color="k", lw=0.8, label="$|B|$")
    _vector(axis, part, "b_gsm", "B GSM\n(nT)", "B")


def _electric(axis: Any, part: xr.Dataset) -> None:
    _vector(axis, part, "e_gsm", "E GSM\n(mV m$^{-1}$)", "E")


def _density(axis: Any, part: xr.Dataset) -> None:
    axis.plot(part["time"], part["ne"], color=COLOURS[0], lw=0.8, label="$n_e$")
    axis.plot(part["time"], part["ni"], color=COLOURS[1], lw=0.8, label="$n_i$")
    axis.set_ylabel("n\n(cm$^{-3}$)")
    _legend(axis)


def _ions(axis: Any, part: xr.Dataset) -> None:
    _vector(axis, part, "vi_gsm", "$v_i$ GSM\n(km s$^{-1}$)", "v")


def _electrons(axis: Any, part: xr.Dataset) -> None:
    _vector(axis, part, "ve_gsm", "$v_e$ GSM\n(km s$^{-1}$)", "v")


def _current(axis: Any, part: xr.Dataset) -> None:
    _vector(axis, part, "j_gsm", "J GSM\n(µA m$^{-2}$)", "J")


def _work(axis: Any, part: xr.Dataset) -> None:
    for name, colour, label in (
        ("je_prime", "k", "total"),
        ("je_prime_perp", COLOURS[1], "$\\perp$"),
        ("je_prime_par", COLOURS[0], "$\\parallel$"),
    ):
        axis.plot(part["time"], part[name], color=colour, lw=0.7, label=label)
    axis.set_ylabel("J·E′\n(nW m$^{-3}$)")
    _legend(axis)


def _spectrum(axis: Any, part: xr.Dataset) -> None:
    from matplotlib.colors import LogNorm

    flux = part["spectrum_omni"].values
    good = flux[np.isfinite(flux) & (flux > 0)]
    energy = part["energy"].values[0] if "energy" in part else np.geomspace(10, 3e4, flux.shape[1])
    if not len(good):
        return
    hi = float(np.quantile(good, 0.995))
    mesh = axis.pcolormesh(
        part["time"].values, energy, np.where(flux > 0, flux, np.nan).T, shading="nearest",
        norm=LogNorm(hi / 1e3, hi), cmap="viridis", rasterized=True,
    )  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylabel("electrons\n(eV)")
    axis.grid(False)
    inset = axis.inset_axes((1.012, 0.0, 0.012, 1.0))
    bar_ = axis.figure.colorbar(mesh, cax=inset)
    bar_.set_label("keV/(cm$^2$ s sr keV)", fontsize=6)
    bar_.ax.tick_params(labelsize=6)


def bar(axis: Any, part: xr.Dataset) -> None:
    """Coloured bar of the region; white where none is named."""
    from matplotlib.patches import Patch

    names = [str(n) for n in part["class"].values]
    region, time = part["region"].values, part["time"].values
    changes = np.flatnonzero(np.diff(region) != 0) + 1
    edges = [0, *changes.tolist(), len(region)]
    for lo, hi in pairwise(edges):
        if region[lo] >= 0:
            end = time[hi] if hi < len(time) else time[-1]
            axis.axvspan(time[lo], end, color=REGION[region[lo]], lw=0)
    axis.set_yticks([])
    axis.grid(False)
    axis.set_ylabel("region", rotation=0, ha="right", va="center")
    seen = [k for k in range(len(names)) if (region == k).any()]
    if seen:
        axis.legend(handles=[Patch(color=REGION[k], label=names[k]) for k in seen], fontsize=6,
                    loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=0.8,
                    labelspacing=0.15)  # fmt: skip


def _confidence(axis: Any, part: xr.Dataset) -> None:
    axis.plot(part["time"], part["confidence"], color="k", lw=0.6, label="confidence")
    if "agreement" in part:
        axis.plot(
            part["time"], part["agreement"], color=COLOURS[3], lw=0.6, label="other probes\nagree"
        )
    axis.set_ylim(-0.03, 1.05)
    axis.set_ylabel("confidence")
    if "agreement" in part:
        _legend(axis)


PANELS = {
    "b_gsm": _field,
    "e_gsm": _electric,
    "ne": _density,
    "vi_gsm": _ions,
    "ve_gsm": _electrons,
    "j_gsm": _current,
    "je_prime": _work,
    "spectrum_omni": _spectrum,
}
