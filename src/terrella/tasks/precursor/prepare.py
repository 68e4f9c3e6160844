"""From a station's record to the images a network sees; training and running share it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import nn

from terrella.tasks.precursor.labels import conditions, label_windows
from terrella.tasks.precursor.network import class_weights
from terrella.tasks.precursor.quality import FLAGS
from terrella.tasks.precursor.spectrogram import Batch, Chain, batches, check
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE, Options, Recipe
from terrella.types import NoData, Outputs, Record, Refused, Windows

MARGIN = 3600.0  # s of context that the high-pass sees on both sides
# Columns of a table that tell the answer: models are judged without them.
TRUE = ["kind", "magnitude", "azimuth", "bearing", "lead", "event", "cluster", "pair", "matched"]


def chain_of(recipe: Recipe, options: Options) -> Chain:
    """Settings of the images: what the weights fix, and what a run may choose."""
    return Chain(
        window=recipe.window, overlap=options.overlap, cadence=recipe.cadence,
        cutoff=recipe.cutoff, segment=recipe.segment, hop=recipe.hop, bridge=options.bridge,
        missing=options.missing, size=recipe.size, low=recipe.low, high=recipe.high, margin=MARGIN,
    )  # fmt: skip


def reach(recipe: Recipe, options: Options) -> tuple[np.timedelta64, np.timedelta64]:
    """A window belongs to the job it starts in; the filter sees an hour more on both sides."""
    margin = np.timedelta64(round(MARGIN * 1e9), "ns")
    return margin, margin + np.timedelta64(round(recipe.window * 1e9), "ns")


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Images in 0 .. 1 as bytes: what is stored, drawn and seen by the network alike."""
    return np.round(image * 255.0).astype(np.uint8)


def images_of(record: Record, chain: Chain) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """All windows of a station's record.

    Windows stand on whole multiples of their stride since 1970, so that files of any cut give the
    same ones.

    Returns:
        (n, 3, size, size) uint8; (n, 3, spectra) masked; rows with station, start, end, flags.

    Raises:
        Refused: another cadence than the weights', or less than one window.
    """
    check(chain)
    h = record["H"]
    time = h["time"].to_numpy()
    station = str(h.attrs.get("station", ""))
    cadence = float(h.attrs.get("cadence", _cadence(time)))
    if abs(cadence - chain.cadence) > 1e-6:
        raise Refused(
            f"{station or 'record'}: samples every {cadence:g} s, but {chain.cadence:g} s is needed"
            " (images from another cadence have other frequencies)"
        )
    stride = chain.stride * chain.cadence
    since = time[0].astype("datetime64[ns]").astype(np.int64) / 1e9
    first = round((-since % stride) / chain.cadence)
    field = np.stack([record[k].to_numpy() for k in "HDZ"])
    flags = record["flag"].to_numpy() if "flag" in record else np.zeros(len(time), np.uint8)
    made = list(batches(field, flags, chain, first, 8))
    if not made:
        raise NoData(
            f"{station or 'record'}: {len(time) * chain.cadence / 3600:.1f} h from {time[0]} "
            f"hold no whole window of {chain.window / 3600:g} h"
        )
    index = np.concatenate([b.index for b in made])
    span = np.timedelta64(round(chain.window * 1e9), "ns")
    table = pd.DataFrame({"start": time[index], "end": time[index] + span})
    table["station"] = station
    table["flags"] = np.concatenate([b.flags for b in made])
    return np.concatenate([_bytes(b) for b in made]), np.concatenate([b.lost for b in made]), table


def _bytes(batch: Batch) -> np.ndarray:
    return to_bytes(batch.image)


def _cadence(time: np.ndarray) -> float:
    return float(np.median(np.diff(time[:1000]).astype(np.int64))) / 1e9 if len(time) > 1 else 0.0


def label(table: pd.DataFrame, record: Record, options: Options) -> pd.DataFrame:
    """Add labels where the record knows earthquakes, and season, hour, Kp."""
    from terrella.tasks.precursor.stations import QUAKE, rule

    how = rule(options)
    kp = None
    if "kp" in record:
        kp = pd.Series(record["kp"].to_numpy(), pd.DatetimeIndex(record["kp"]["time"].to_numpy()))
    if "quake" not in record:
        return conditions(table.assign(kind="unknown"), kp, how)
    found = pd.DataFrame(record["quake"].to_numpy(), columns=list(QUAKE))
    found["time"] = record["quake"]["time"].to_numpy()
    code = str(table["station"].iloc[0])
    found["station"] = code
    made = label_windows(code, table["end"].to_numpy("datetime64[ns]"), found, how)
    extra = table.drop(columns=["station", "end"]).reset_index(drop=True)
    return conditions(pd.concat([made, extra], axis=1), kp, how)


def prepare(record: Record, recipe: Recipe, options: Options) -> Windows:
    """Images of a record's windows, with their labels where earthquakes are known.

    Args:
        record: H, D, Z (nT) and flags of one station; or ``image``.
        recipe: of the weights.
        options: gaps, overlap, labels.

    Returns:
        x ``image`` (rows, 3, size, size) uint8; time: end of each window; y ``magnitude``,
        ``azimuth`` (rows,) with -1 where the truth is unknown; groups ``station``, ``earthquake``,
        ``block``; extra ``table``, ``lost``, ``explain``, ``hertz`` of the image's rows, and
        ``range_db``, what 0 and 1 stand for.
    """
    if "image" in record:
        image, lost, table = stored(record["image"], recipe)
    else:
        image, lost, bare = images_of(record, chain_of(recipe, options))
        table = label(bare, record, options)
    return windows_of(image, table, recipe, lost, options.explain)


def stored(image: xr.DataArray, recipe: Recipe) -> tuple[np.ndarray, None, pd.DataFrame]:
    """Images from files, resized to the network's size where they have another."""
    pixels = np.ascontiguousarray(image.to_numpy(), np.uint8)
    window = float(image.attrs.get("window_s", recipe.window))
    if abs(window - recipe.window) > 1e-6:
        raise Refused(
            f"images of {window / 3600:g} h, but these weights see {recipe.window / 3600:g} h"
        )
    if pixels.shape[-1] != recipe.size:
        resized = torch.nn.functional.interpolate(
            torch.from_numpy(pixels).float(), (recipe.size, recipe.size), mode="bilinear",
            align_corners=False, antialias=True,
        )  # fmt: skip
        pixels = resized.round().clamp(0, 255).to(torch.uint8).numpy()
    names = [str(k) for k in image.coords if image[k].dims == ("time",) and k != "time"]
    table = pd.DataFrame({k: image[k].to_numpy() for k in names})
    table["end"] = image["time"].to_numpy()
    for name, blank in (("flags", 0), ("station", ""), ("kind", "unknown"), ("kp", np.nan)):
        if name not in table:
            table[name] = blank
    when = pd.DatetimeIndex(table["end"])
    table["month"], table["hour"] = when.month, when.hour
    return pixels, None, table


def windows_of(
    image: np.ndarray,
    table: pd.DataFrame,
    recipe: Recipe,
    lost: np.ndarray | None = None,
    explain: str = "none",
) -> Windows:
    """Images and their table as Windows."""
    table = table.reset_index(drop=True)
    table.attrs["true"] = TRUE
    y = None
    if (table["kind"] != "unknown").any():
        y = {k: torch.tensor(table[k].to_numpy(np.int64)) for k in ("magnitude", "azimuth")}
        y |= row_weights(y, recipe)
    for name in ("cluster", "block"):
        if name not in table:
            table[name] = -1
    kp = table["kp"].fillna(-1.0)
    table["kp_class"] = np.floor(kp).astype(int)
    # A window of no earthquake is a group of its own, by station and time: the same in any subset.
    calm = table["station"].astype(str) + " " + table["end"].astype(str)
    quake = np.where(table["cluster"] >= 0, table["cluster"].astype(int).astype(str), calm)
    if "world" in table:  # earthquakes of simulated worlds are numbered alike
        quake = table["world"].astype(str) + " " + quake
    chain = chain_of(recipe, Options())
    return Windows(
        x={"image": torch.from_numpy(image)},
        time=table["end"].to_numpy("datetime64[ns]"),
        valid=(table["flags"].to_numpy(np.uint8) & FLAGS["dropped"]) == 0,
        groups={
            "station": table["station"].astype(str).to_numpy("U"),
            "earthquake": np.asarray(quake, "U"),
            "block": table["block"].to_numpy(np.int64),
        },
        y=y,
        extra={
            "table": table,
            "lost": lost,
            "explain": explain,
            "hertz": chain.rows,
            "range_db": (recipe.low, recipe.high),
        },
    )


def row_weights(y: dict[str, torch.Tensor], recipe: Recipe) -> dict[str, torch.Tensor]:
    """(rows,) class weights of both heads and the focal exponent, as targets the loss reads."""
    out = {}
    for name, classes in (("magnitude", MAGNITUDE), ("azimuth", AZIMUTH)):
        known = (y[name] >= 0).float()
        table = class_weights(y[name], len(classes)) if recipe.class_weights else None
        weight = known if table is None else known * table[y[name].clamp(min=0)]
        out[f"{name}_weight"] = weight
    return out | {"focus": torch.full((len(y["magnitude"]),), float(recipe.focus))}


def sample(windows: Windows, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on: valid ones whose truth is known."""
    assert windows.y is not None
    rows = np.flatnonzero(windows.valid & (windows.y["magnitude"].numpy() >= 0))
    return rows, np.ones(len(rows), np.float32)


def predict(network: nn.Module, windows: Windows) -> Outputs:
    """Logits of both heads, and integrated Grad-CAM of the head asked for, a few images at a time.

    The map is taken before the last stage, whose convolutions reach over most of the image.
    """
    from terrella.predict import predict as plain
    from terrella.tasks.precursor.gradcam import gradcam

    out: dict[str, Any] = plain(network, windows, rows=32)
    head = windows.extra.get("explain", "none")
    if head != "none":
        cam = gradcam(network, windows.x["image"], head, layer=-2, steps=8)  # type: ignore[arg-type]
        out["cam"] = to_bytes(cam)
    return out
