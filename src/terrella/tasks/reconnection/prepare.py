"""From an MMS record to the rows that a network sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from terrella.steps.window import base, once_per_sample
from terrella.tasks.reconnection.derive import FEATURES, Crossing, cross
from terrella.tasks.reconnection.scale import factors
from terrella.types import Features, NoData, Refused, Windows

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

Array = np.ndarray
KEEP = 8  # one row in so many is trained on: neighbours differ by little but noise


def prepare(record: dict[str, xr.DataArray], recipe: Any, options: Any) -> Windows:
    """Derive, normalise and cut an MMS record into rows, one a sample of the electron clock.

    Args:
        record: ``mms<probe>_<name>`` as from ``sources.mms``.
        recipe, options: of the task.

    Returns:
        ``x["features"]`` (rows, window, 14) views; row i holds the context of sample i, ``before``
        rows before it and ``after`` behind. ``valid`` is False where the context is not whole.
        Probes follow each other. ``y["region"]`` where the record has the truth.

    Raises:
        NoData: an instrument is missing or nothing overlaps.
        Refused: B0, n0 or the electric field cannot be used.
    """
    import torch

    probes = sorted({k[3] for k in record if k.startswith("mms") and k[4:5] == "_"})
    if not probes:
        raise NoData("the record holds no MMS quantity")
    before, after = context(recipe, options)
    crossings = [cross(record, p, options) for p in probes]
    features = np.concatenate([c.features for c in crossings])
    broken = np.concatenate([c.segment + 1_000_000 * k for k, c in enumerate(crossings)])
    finite = np.isfinite(features).all(axis=1)
    base = np.zeros((before + len(features) + after, 14), np.float32)
    base[before : before + len(features)] = np.where(finite[:, None], features, 0)
    view = torch.from_numpy(base).unfold(0, before + 1 + after, 1).transpose(1, 2)
    published = options.mode == "published"
    if published:
        # The authors know no gaps; here a missing input or a gap begins a new chunk.
        broken = broken + _changes(finite)
    valid = finite if published else _whole(finite, broken, before, after)
    if options.rate != "brst":
        valid = np.zeros_like(valid)  # no network has learned samples of 4.5 s
    time = np.concatenate([c.time for c in crossings])
    who = np.concatenate([np.full(len(c.time), c.probe) for c in crossings])
    draws = 1 if published else options.draws
    return Windows(
        x={"features": view},
        time=time,
        valid=valid,
        groups={"path": np.full(len(time), _path_name(record))},
        y=_targets(record, crossings),
        extra={
            "crossings": crossings,
            "mode": options.mode,
            "place": before,
            "probe": who,
            "segment": broken,
            "factors": [factors(c.scale, draws) for c in crossings],
            "probe_rows": np.cumsum([0, *(len(c.time) for c in crossings)]),
        },
    )


def sample(windows: Windows, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A share of a path's rows: paths differ more than the samples of one."""
    rows = np.flatnonzero(windows.valid)
    chosen = np.sort(rng.choice(rows, max(len(rows) // KEEP, min(len(rows), 1)), replace=False))
    return chosen, np.ones(len(chosen), np.float32)


def features(windows: Windows) -> Features:
    """The 14 network inputs at each sample, and their spread over its context.

    Returns:
        28 columns, in B0, n0 and V as ``derive.normalise`` has them; NaN in rows that are not
        valid.
    """
    view = windows.x["features"]
    mean = running(view, 0, view.shape[1])
    square = running(once_per_sample(lambda s: s.double() ** 2, view), 0, view.shape[1])
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    values = np.concatenate([view[:, windows.extra["place"]].numpy(), spread], 1)
    values[~windows.valid] = np.nan
    return Features((*FEATURES, *(f"{n} spread" for n in FEATURES)), values)


def running(view: Tensor, lo: int, hi: int) -> Array:
    """Mean of samples [lo, hi) of every window, from sums along the series they slide over.

    Args:
        view: (rows, window, channels).
        lo, hi: within the window.

    Returns:
        (rows, channels) float64.
    """
    series = base(view)
    if series is None:
        mean: Array = view[:, lo:hi].double().mean(1).numpy()
        return mean
    total = np.zeros((len(series) + 1, series.shape[1]))
    np.cumsum(series.numpy(), 0, dtype=float, out=total[1:])
    return (total[hi : hi + len(view)] - total[lo : lo + len(view)]) / (hi - lo)


def context(recipe: Any, options: Any) -> tuple[int, int]:
    """Rows of context before and after a sample.

    Raises:
        Refused: no context, or a mode that the network cannot run in.
    """
    if recipe.kind == "waters2025":
        if options.context < 1:
            raise Refused(
                f"--context {options.context}: must be 1 sample or more; the authors use 32"
            )
        if options.mode == "published" and options.context != 32:
            raise Refused(
                f"--context {options.context}: --mode published resets the state every 32 rows as "
                "the authors do; leave --context out, or use --mode overlap"
            )
        return options.context - 1, 0
    if options.mode == "published":
        raise Refused(
            "--mode published: is for the published network only; add --weights waters2025 "
            "(after `terrella weights import reconnection FILE --name waters2025`)"
        )
    return recipe.before, recipe.after


def _whole(finite: Array, segment: Array, before: int, after: int) -> Array:
    """Samples whose whole context is finite and unbroken."""
    rows = len(finite)
    bad = np.concatenate([[0], np.cumsum(~finite)])
    place = np.arange(rows)
    lo, hi = place - before, place + after
    inside = (lo >= 0) & (hi < rows)
    lo, hi = np.clip(lo, 0, max(rows - 1, 0)), np.clip(hi, 0, max(rows - 1, 0))
    whole: Array = inside & (bad[hi + 1] == bad[lo])
    return whole & (segment[lo] == segment[hi]) if rows else whole


def _changes(finite: Array) -> Array:
    return np.cumsum(np.diff(finite, prepend=finite[:1]))


def chunks(segment: Array, size: int) -> tuple[Array, Array]:
    """Number of the chunk each row is in, and its place there; a new segment opens a new chunk.

    Args:
        segment: (rows,) ascending numbers of unbroken stretches.
        size: rows a chunk.
    """
    rows = np.arange(len(segment))
    place = (rows - np.searchsorted(segment, segment, "left")) % size
    return np.cumsum(place == 0) - 1, place


def _targets(record: dict[str, xr.DataArray], crossings: list[Crossing]) -> Any:
    import torch

    truths = [record.get(f"mms{c.probe}_truth") for c in crossings]
    if any(t is None for t in truths):
        return None
    if any(len(t) != len(c.time) for t, c in zip(truths, crossings, strict=True) if t is not None):
        return None
    region = np.concatenate([t.values for t in truths if t is not None]).astype(np.int64)
    # How far the scale used is from the true one: training trusts such rows less.
    pairs = zip(truths, crossings, strict=True)
    off = [abs(np.log(c.scale.b0 / t.attrs["b0"])) for t, c in pairs if t is not None]
    doubt = np.concatenate(
        [np.full(len(c.time), o, np.float32) for o, c in zip(off, crossings, strict=True)]
    )
    return {"region": torch.from_numpy(region), "doubt": torch.from_numpy(doubt)}


def _path_name(record: dict[str, xr.DataArray]) -> str:
    for array in record.values():
        if "path" in array.attrs:
            return str(array.attrs["path"])
    return str(np.datetime64(next(iter(record.values()))["time"].values[0], "s"))
