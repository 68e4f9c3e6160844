"""MMS quantities as named columns of CSV or NetCDF files, for data that come by another road.

Columns are called as in the record, with or without the probe: ``b_x``, ``mms2_ni``, ``pe_xy``; a
unit in brackets (``b_x [nT]``) is checked. Each file has one ``time`` column, UTC; rows where a
quantity is blank are not samples of it, so one file may mix clocks. Vectors are in GSE. The
fourteen normalised features ``Bx`` ... ``vez``, as the published code writes them, are read too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terrella.sources.mms_variables import QUANTITIES, SAME
from terrella.types import NoData, Refused, Variable

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

NAME = re.compile(r"^(?:mms([1-4])_)?(.+?)(?:_([xyz]{1,2}))?(?:\s*\[(.*)\])?$")
# The simulation's axes, in the order of the features.
NETWORK = ("Bx", "By", "Bz", "Ex", "Ey", "Ez", "ni", "ne",
           "vix", "viy", "viz", "vex", "vey", "vez")  # fmt: skip
VECTOR = {"x": 0, "y": 1, "z": 2}


@dataclass(frozen=True)
class Tables:
    """A source over quantities already in memory.

    Attributes:
        record: ``mms<probe>_<name>``.
    """

    record: dict[str, xr.DataArray]

    def fetch(
        self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
    ) -> dict[str, xr.DataArray]:
        """The part in [start, stop); see ``terrella.types.Source``."""
        out = {}
        for name, array in self.record.items():
            time = array["time"].values
            part = array.isel(time=slice(*np.searchsorted(time, [start, stop])))
            if part.sizes["time"]:
                out[name] = part
        if not out:
            raise NoData(f"the tables hold nothing between {start} and {stop}")
        return out

    def narrow(self, start: np.datetime64, stop: np.datetime64) -> Tables:
        """The part in [start, stop), in arrays of its own."""
        try:
            return Tables({n: a.copy() for n, a in self.fetch((), start, stop).items()})
        except NoData:
            return Tables({})


def read_table(path: Path, probe: str = "1") -> dict[str, xr.DataArray]:
    """Read a CSV, NetCDF or ``.npz`` file of named columns.

    Args:
        path: the file; told apart by content.
        probe: the probe of columns that name none.

    Returns:
        ``mms<probe>_<name>``; ``mms<probe>_features`` for a file of network inputs.

    Raises:
        Refused: no time, no column known, or a wrong unit.
    """
    with path.open("rb") as stream:
        head = stream.read(8)
    if not head:
        raise Refused(f"{path}: is empty")
    if head[:4] in (b"\x89HDF", b"CDF\x01", b"CDF\x02", b"CDF\x05"):
        return _from_netcdf(path, probe)
    if head[:2] == b"PK":
        return _from_npz(path, probe)
    return _from_csv(path, probe)


def _from_csv(path: Path, probe: str) -> dict[str, xr.DataArray]:
    import pandas as pd

    try:
        table = pd.read_csv(path, comment="#", skipinitialspace=True)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise Refused(f"{path}: is not a CSV table ({str(error).splitlines()[0][:100]})") from None
    columns = {str(c).strip(): table[c] for c in table.columns}
    named = re.match(r"mms([1-4])_", path.name)
    return _assemble(path, columns, named[1] if named else probe)


def _from_npz(path: Path, probe: str) -> dict[str, xr.DataArray]:
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {k: held[k] for k in held.files if held[k].dtype.kind in "fiuM"}
    except (ValueError, OSError, EOFError, KeyError, RuntimeError, NotImplementedError) as error:
        raise Refused(f"{path}: cannot be read ({str(error)[:100]})") from None
    features = arrays.get("features")
    if features is None or features.ndim != 2 or features.shape[1] != len(NETWORK):
        raise Refused(f"{path}: needs an array 'features' of shape (rows, {len(NETWORK)})")
    time = arrays.get("time")
    return {f"mms{probe}_features": _features(path, features, time)}


def _from_netcdf(path: Path, probe: str) -> dict[str, xr.DataArray]:
    import xarray as xr

    try:
        with xr.open_dataset(path) as opened:
            data = opened.load()
    except (ValueError, OSError, KeyError, TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0][:100]
        raise Refused(f"{path}: cannot be read as NetCDF ({reason})") from None
    out: dict[str, xr.DataArray] = {}
    columns: dict[str, Any] = {}
    for name, array in data.data_vars.items():
        match = NAME.match(str(name))
        if array.ndim == 0 or match is None:
            continue
        clock = str(array.dims[0])
        if clock not in data.coords:
            continue
        short, who = match[2], match[1] or probe
        wanted = QUANTITIES.get(short)
        attrs = dict(array.attrs)
        time = data[clock].values
        if short == "truth" or (wanted and array.shape[1:] == wanted.shape and not match[3]):
            if wanted:
                _check_unit(path, str(name), str(attrs.get("units", "")), wanted.units)
            attrs = {"units": wanted.units if wanted else "1", "long_name": "", **attrs}
            out[f"mms{who}_{short}"] = _array(path, time, array.values, attrs)
        elif array.ndim == 1:
            unit = f" [{attrs['units']}]" if "units" in attrs and attrs["units"] != "1" else ""
            columns.setdefault(clock, {})[f"{name}{unit}"] = array.to_series()
    for clock, found in columns.items():
        table = {"time": data[clock].to_series(), **found}
        try:
            out |= _assemble(path, table, probe)
        except Refused:
            if not out:
                raise
    if not out:
        raise Refused(_unknown(path))
    return out


def _assemble(
    path: Path, columns: dict[str, pd.Series[Any]], probe: str
) -> dict[str, xr.DataArray]:
    import pandas as pd

    key = next((c for c in columns if c.lower() in ("time", "epoch", "time index", "")), None)
    key = key or next((c for c in columns if c.startswith("Unnamed")), None)
    if all(c in columns for c in NETWORK):
        features = np.column_stack([pd.to_numeric(columns[c], errors="coerce") for c in NETWORK])
        # The published code may write row numbers where the time would be.
        stamps = None if key is None else columns[key]
        numbered = stamps is None or pd.api.types.is_numeric_dtype(stamps)
        time = None if numbered else _instants(path, stamps)
        return {f"mms{probe}_features": _features(path, features, time)}
    if key is None:
        raise Refused(f"{path}: has no 'time' column")
    time = _instants(path, columns[key])
    found: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for name, column in columns.items():
        match = NAME.match(name)
        if match is None or name == key:
            continue
        who, short, axes, unit = match[1] or probe, match[2], match[3] or "", match[4]
        wanted = QUANTITIES.get(short)
        if wanted is None or len(wanted.shape) != len(axes) or wanted.shape == (32,):
            continue
        _check_unit(path, name, unit or "", wanted.units)
        place = tuple(VECTOR[a] for a in axes)
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
        found.setdefault(f"mms{who}_{short}", {})[place] = numbers
    if not found:
        raise Refused(_unknown(path))
    return {name: _quantity(path, name, time, parts) for name, parts in found.items()}


def _quantity(
    path: Path, name: str, time: np.ndarray, parts: dict[tuple[int, ...], np.ndarray]
) -> xr.DataArray:
    wanted = QUANTITIES[name[5:]]
    values = np.full((len(time), *wanted.shape), np.nan)
    for place, numbers in parts.items():
        index: list[Any] = [(slice(None), *place)]
        if len(place) == 2 and place[::-1] not in parts:  # a symmetric tensor may be given by half
            index.append((slice(None), *place[::-1]))
        for each in index:
            values[each] = numbers
    for place in list(np.ndindex(*wanted.shape)):
        if place not in parts and place[::-1] not in parts:
            axes = "".join("xyz"[k] for k in place)
            raise Refused(f"{path}: {name} lacks its component {name}_{axes}")
    sampled = np.isfinite(values).reshape(len(time), -1).any(axis=1)
    attrs = {"units": wanted.units, "long_name": wanted.long_name, "centre_s": 0.0}
    return _array(path, time[sampled], values[sampled], attrs)


def _array(path: Path, time: np.ndarray, values: np.ndarray, attrs: dict[str, Any]) -> xr.DataArray:
    import xarray as xr

    time = np.asarray(time)
    if time.dtype.kind != "M":
        raise Refused(f"{path}: its time is not a time")
    time = time.astype("datetime64[ns]")
    good = ~np.isnat(time)
    time, first = np.unique(time[good], return_index=True)
    dims = ("time", *(f"c{k}" for k in range(values.ndim - 1)))
    return xr.DataArray(values[good][first], {"time": time}, dims, attrs=attrs)


def _features(path: Path, features: np.ndarray, time: np.ndarray | None) -> xr.DataArray:
    import xarray as xr

    attrs = {"units": "1", "long_name": "normalised network inputs"}
    if time is None:  # without times the rows are taken as samples of burst DES
        time = np.datetime64("2000-01-01", "ns") + np.arange(len(features)) * np.timedelta64(
            30, "ms"
        )
        attrs["time_assumed"] = (
            f"{path.name} has no times; its rows are dated from 2000-01-01T00:00:00, 30 ms apart"
        )
    if len(features) < 1:
        raise Refused(f"{path}: holds no row")
    return xr.DataArray(
        features.astype(np.float32), {"time": np.asarray(time, "datetime64[ns]")},
        ("time", "feature"), attrs=attrs,
    )  # fmt: skip


def _instants(path: Path, column: Any) -> np.ndarray:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        raise Refused(f"{path}: time cannot be read (plain numbers); write 2017-07-11T22:34:02.030")
    try:
        parsed = pd.to_datetime(column, utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0][:80]
        raise Refused(
            f"{path}: time cannot be read ({reason}); write 2017-07-11T22:34:02.030"
        ) from None
    return np.asarray(parsed.dt.tz_localize(None).to_numpy("datetime64[ns]"))


def _check_unit(path: Path, name: str, unit: str, wanted: str) -> None:
    unit = unit.strip()
    if unit and wanted != "1" and SAME.get(unit, unit) != wanted:
        raise Refused(f"{path}: {name} is in {unit!r}, expected {wanted!r}")


def _unknown(path: Path) -> str:
    return (
        f"{path}: no column is known; name them as b_x, b_y, b_z (nT, GSE), e_x (mV/m), ni, ne "
        "(cm-3), vi_x, ve_x (km/s), pi_xx, pe_xx (nPa), with mms1_ before them for a probe"
    )
