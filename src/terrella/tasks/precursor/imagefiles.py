"""Spectrogram images as files: NetCDF with axes and labels, and PNG as the original has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from terrella import files
from terrella.tasks.precursor.spectrogram import Chain
from terrella.types import Job, NoData, Record, Refusal, Refused, Variable

#: Columns of a label table that are kept beside the images.
LABELS = (
    "station", "kind", "magnitude", "azimuth", "bearing", "lead", "event", "cluster", "block",
    "kp", "pair",
)  # fmt: skip
FORMAT = "terrella precursor spectrograms 1"
EPOCH = np.datetime64("1970-01-01T00:00:00", "ns")


def is_image(path: Path) -> bool:
    """Whether a file is a PNG, or a NetCDF of this module, by its first bytes and suffix."""
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError:
        return False
    return head == b"\x89PNG\r\n\x1a\n" or head == b"\x89HDF\r\n\x1a\n"


def dataset(
    image: NDArray[np.uint8],
    lost: NDArray[np.bool_] | None,
    table: pd.DataFrame,
    chain: Chain,
    attrs: dict[str, Any],
) -> xr.Dataset:
    """Images with their axes as a dataset.

    Args:
        image: (n, 3, size, size) brightness 0 .. 255; the last row is the lowest frequency.
        lost: (n, 3, spectra) masked spectra; None where unknown.
        table: (n,) rows with end, flags and any of LABELS.
        chain: settings that made them.
        attrs: global attributes.

    Returns:
        ``image(time, component, frequency, offset)`` with brightness = 255 (dB - low) / (high -
        low), and one variable a label.
    """
    ends = table["end"].to_numpy("datetime64[ns]")
    data: dict[str, Any] = {
        "image": (
            ("time", "component", "frequency", "offset"), image,
            {"long_name": "brightness", "units": "1", "db_at_0": chain.low, "db_at_255": chain.high,
             "db_reference": "1 nT2/Hz"},
        ),
        "start": ("time", ends - np.timedelta64(round(chain.window * 1e9), "ns")),
        "flags": ("time", table["flags"].to_numpy(np.uint8), {"long_name": "quality flags"}),
    }  # fmt: skip
    if lost is not None:
        data["masked"] = (
            ("time", "component", "spectrum"), lost.astype(np.uint8),
            {"long_name": "spectra that touch a gap or step; each frequency's median stands there"},
        )  # fmt: skip
    for name in LABELS:
        if name in table:
            column = table[name]
            text = not pd.api.types.is_numeric_dtype(column)
            values = column.astype(str).to_numpy("U") if text else column.to_numpy()
            data[name] = ("time", values)
    coords = {
        "time": ("time", ends, {"long_name": "end of the window"}),
        "component": ["H", "D", "Z"],
        "frequency": ("frequency", chain.rows, {"units": "Hz"}),
        "offset": ("offset", chain.columns, {"units": "s", "long_name": "since window start"}),
    }
    words = {"terrella_format": FORMAT, "window_s": chain.window, "cadence_s": chain.cadence}
    return xr.Dataset(data, coords, attrs={**words, **attrs})


def write(data: xr.Dataset, path: Path) -> Path:
    """Write images as NetCDF (``.nc``) or Zarr (``.zarr``), whole or not at all."""
    if path.suffix == ".zarr":
        try:
            data.to_zarr(path, mode="w")
        except ImportError:
            raise Refused(f"{path}: Zarr needs the package zarr; or write NetCDF (.nc)") from None
        return path
    encoding: dict[str, dict[str, Any]] = {"image": {"zlib": True, "complevel": 1}}
    for name in ("time", "start"):
        encoding[name] = {"units": "milliseconds since 1970-01-01", "dtype": "int64"}
    with files.whole(path) as scratch:
        data.to_netcdf(scratch, engine="h5netcdf", encoding=encoding)
    return path


def write_png(image: NDArray[np.uint8], path: Path) -> Path:
    """One (3, size, size) image as RGB PNG: H red, D green, Z blue."""
    from PIL import Image

    with files.whole(path) as scratch:
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(scratch, "PNG")
    return path


def read_png(path: Path, size: int) -> NDArray[np.uint8]:
    """(3, size, size) of a PNG, resized bilinearly where it has another size.

    Raises:
        Refused: not a whole picture, or absurdly large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > 100_000_000:
                raise Refused(f"{path}: {picture.width} x {picture.height} is no spectrogram")
            rgb = picture.convert("RGB")
            if rgb.size != (size, size):
                rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(rgb, np.uint8).transpose(2, 0, 1)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise Refused(f"{path}: damaged PNG ({str(error)[:80]})") from None


@dataclass(frozen=True)
class Pictures:
    """PNG images as a source; their times are made up, one second apart, in order of name."""

    paths: tuple[Path, ...]
    station: str
    start: np.datetime64

    def fetch(
        self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
    ) -> Record:
        """``image`` (time, component, frequency, offset) uint8 at 224 x 224."""
        image = np.stack([read_png(p, 224) for p in self.paths])
        time = self.start + np.arange(len(image)) * np.timedelta64(1, "s")
        coords: dict[str, Any] = {"time": time, "file": ("time", [p.stem for p in self.paths])}
        coords["station"] = ("time", [self.station] * len(image))
        attrs = {"units": "1", "station": self.station}
        return {"image": xr.DataArray(image, coords, ("time", "component", "y", "x"), attrs=attrs)}


@dataclass(frozen=True)
class Stored:
    """A NetCDF of images as a source."""

    path: Path

    def fetch(
        self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
    ) -> Record:
        """``image`` with every label and flag as a coordinate along time."""
        with open_stored(self.path) as data:
            inside = (data["time"] >= start) & (data["time"] < stop)
            part = data.isel(time=np.flatnonzero(inside.to_numpy())).load()
        if not part.sizes["time"]:
            raise NoData(f"{self.path}: no image between {start} and {stop}")
        names = [k for k in (*LABELS, "flags", "start") if k in part]
        found = part["image"].assign_coords({k: part[k] for k in names})
        found.attrs["window_s"] = part.attrs["window_s"]
        return {"image": found}


def open_stored(path: Path) -> xr.Dataset:
    """Open a NetCDF of this module.

    Raises:
        Refused: not one, or damaged.
    """
    try:
        data = xr.open_dataset(path, engine="h5netcdf", decode_timedelta=False)
    except Exception as error:  # h5netcdf raises what the damage leads to
        raise Refused(f"{path}: damaged NetCDF ({str(error).splitlines()[0][:80]})") from None
    if data.attrs.get("terrella_format") != FORMAT:
        data.close()
        raise Refused(
            f"{path}: NetCDF, but not of images; `terrella precursor spectrograms` writes such"
        )
    return data


def jobs(paths: Sequence[Path], station: str, refused: list[Refusal]) -> list[Job]:
    """One job for all PNG files, and one for each NetCDF; damaged files are put in ``refused``."""
    pictures: list[Path] = []
    out: list[Job] = []
    for path in paths:
        try:
            with path.open("rb") as stream:
                png = stream.read(4) == b"\x89PNG"
            if png:
                read_png(path, 16)
                pictures.append(path)
                continue
            with open_stored(path) as data:
                time = data["time"].to_numpy()
            last = time.max() + np.timedelta64(1, "ns")
            out.append(Job(path.stem, Stored(path), time.min(), last, (path,)))
        except Refused as refusal:
            refused.append(Refusal(str(path), str(refusal)))
    if pictures:
        stem = pictures[0].stem if len(pictures) == 1 else pictures[0].parent.name or "images"
        stop = EPOCH + np.timedelta64(len(pictures), "s")
        source = Pictures(tuple(pictures), station, EPOCH)
        out.append(Job(stem, source, EPOCH, stop, tuple(pictures)))
    return out
