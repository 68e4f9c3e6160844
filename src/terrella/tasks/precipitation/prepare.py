"""From a SEM-2 record to the windows a network sees; training and running share it.

Source: Capannolo, Li & Huang 2022, doi:10.3389/fspas.2022.858990.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from terrella.sources.poes import open_archive
from terrella.sources.sem2 import CADENCE
from terrella.steps.clean import breaks, spans
from terrella.steps.window import as_tensor, centre, slide
from terrella.tasks.precipitation.task import FLUX, Options, Recipe
from terrella.types import Features, Opening, Record, Refused, Windows

ORDER = tuple(v.name for v in FLUX)
# One count of each telescope in flux units, as the archive's smallest steps show.
QUANTUM = np.array(
    [80.64516, 80.64516, 69.44444, 69.44444, 133.33333, 133.33333, 181.81818, 181.81818]
)
FLOOR = np.array([0.01, 100.0] * 4)  # published stand-ins for a value <= 0, 0 and 90 degrees
SEAM = np.timedelta64(600, "s")  # no event crosses a belt for longer than this
QUIET_SHARE = 0.04  # of the quiet rows that training keeps, each standing for 1 / this many


def published_rules(options: Options) -> bool:
    """Whether the run keeps to the authors' handling of files, gaps and rows."""
    return options.postprocess.startswith("capannolo")


def open_files(paths: Iterable[Path], options: Options) -> Opening:
    """One job a file; the published rules take each file by itself."""
    return open_archive(paths, join_days=not published_rules(options))


def reach(recipe: Recipe, options: Options) -> tuple[np.timedelta64, np.timedelta64]:
    """How far over its edges a job reads, so that events over midnight stay whole."""
    seam = np.timedelta64(0, "s") if published_rules(options) else SEAM
    return seam, seam


def prepare(record: Record, recipe: Recipe, options: Options) -> Windows:
    """Windows of ``recipe.window`` samples with stride 1, as views of one feature array.

    Args:
        record: fluxes (cm-2 s-1 sr-1, fills -999), L, MLT (h), lat, lon (deg), all on one clock.
        recipe: features and window of the weights.
        options: with published rules windows span gaps, as the authors' do.

    Returns:
        x ``flux`` (rows, window, channels); row i covers samples i..i+window-1 and speaks for its
        middle; y ``class`` (rows,) where the truth is known; group ``orbit`` (rows,).

    Raises:
        Refused: fewer samples than one window.
    """
    time = record["L"]["time"].to_numpy()
    # The published rules never use the last window, so they need a sample more.
    needed = recipe.window + published_rules(options)
    if len(time) < needed:
        raise Refused(
            f"{len(time)} samples from {time[0]}: a window needs {needed}; give a longer file"
        )
    flux = np.stack([record[k].to_numpy() for k in ORDER], 1)
    features = published_features(flux) if recipe.features == "published" else counts(flux)
    broken = breaks(time, CADENCE)
    middle = slice(centre(recipe.window), len(time) - (recipe.window - 1 - centre(recipe.window)))
    crossing = spans(broken, recipe.window)
    truth = record["truth"].to_numpy()[middle] if "truth" in record else None
    satellite = record["L"].attrs.get("satellite", "unknown")
    return Windows(
        x={"flux": slide(as_tensor(features), recipe.window)},
        time=time[middle],
        valid=np.ones(len(crossing), bool) if published_rules(options) else ~crossing,
        groups={"orbit": orbits(time, record["lat"].to_numpy(), satellite)[middle]},
        y=None if truth is None else {"class": torch.from_numpy(truth.astype("i8"))},
        extra={"flux": flux, "L": record["L"].to_numpy(), "MLT": record["MLT"].to_numpy(),
               "middle": middle, "broken": broken},
    )  # fmt: skip


def channels(flux: np.ndarray) -> np.ndarray:
    """Natural log of counts (half a count for none) of (samples, 8) fluxes, NaN where missing."""
    seen = np.log(np.maximum(flux.astype(float) / QUANTUM, 0.5))
    return np.where(flux < 0, np.nan, seen)


def features(windows: Windows) -> Features:
    """Log counts of each channel at the sample a row speaks for, and their mean in its window."""
    seen = channels(windows.extra["flux"])
    length = windows.x["flux"].shape[1]
    total = np.cumsum(np.pad(np.nan_to_num(seen), ((1, 0), (0, 0))), 0)
    known = np.cumsum(np.pad(np.isfinite(seen), ((1, 0), (0, 0))), 0)
    count = known[length:] - known[:-length]
    mean = np.where(count > 0, (total[length:] - total[:-length]) / np.maximum(count, 1), np.nan)
    names = (*(f"ln {n}" for n in ORDER), *(f"mean ln {n}" for n in ORDER))
    rows = slice(0, len(windows))
    return Features(names, np.concatenate([seen[windows.extra["middle"]][rows], mean[rows]], 1))


def published_features(flux: np.ndarray) -> np.ndarray:
    """The authors' transform: a value <= 0 becomes 0.01 or 100, then ln(value + 0.001).

    Fills (-999) go the same way, as published.

    Args:
        flux: (samples, 8) in the order e1_0, e1_90, ... e4_90.

    Returns:
        (samples, 8) float64.
    """
    return np.log(np.where(flux <= 0, FLOOR, flux.astype(float)) + 0.001)


def counts(flux: np.ndarray) -> np.ndarray:
    """Our transform: ln of counts, half a count for none, and two channels for missing E4.

    Args:
        flux: (samples, 8).

    Returns:
        (samples, 10): a missing value is set to none and said to be so.
    """
    missing = flux < 0
    seen = np.log(np.maximum(np.where(missing, 0.0, flux.astype(float)) / QUANTUM, 0.5))
    return np.concatenate([seen, missing[:, 6:].astype(float)], 1)


def orbits(time: np.ndarray, lat: np.ndarray, satellite: str) -> np.ndarray:
    """Label of the orbit of each sample: satellite and the minute it crossed the equator going up.

    Args:
        time: (samples,) datetime64.
        lat: (samples,) degrees.
        satellite: as in file names.

    Returns:
        (samples,) str.
    """
    up = np.concatenate([[True], (lat[1:] >= 0) & (lat[:-1] < 0)])
    first = np.flatnonzero(up)
    labels = np.array([f"{satellite}-{np.datetime_as_string(t, 'm')}" for t in time[first]])
    named: np.ndarray = labels[np.cumsum(up) - 1]
    return named


def sample(windows: Windows, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on: all near an event, few of the rest, weighted so that rarity is kept.

    Returns:
        Row numbers and their weights; weighted, they stand for the continuous orbit.
    """
    assert windows.y is not None
    event = windows.y["class"].numpy() > 0
    near = np.convolve(event, np.ones(61), "same") > 0.5
    quiet = ~near & (rng.random(len(windows)) < QUIET_SHARE)
    rows = np.flatnonzero((near | quiet) & windows.valid)
    return rows, np.where(near[rows], 1.0, 1.0 / QUIET_SHARE).astype(np.float32)
