"""Write an MMS record as level-2 CDF files in the mission's own layout of names and attributes.

Used for simulated scenes, so that what reads real files is tested through the real format.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terrella import files
from terrella.sources.mms_cdf import J2000, TT_TAI, leap_table
from terrella.sources.mms_variables import QUANTITIES

if TYPE_CHECKING:
    import xarray as xr

REAL4, TT2000, UINT1, UINT4 = 21, 33, 11, 14
FILL = np.float32(-1e31)
UNITS = {"cm-3": "cm^-3", "km s-1": "km/s", "mV m-1": "mV/m", "mW m-2": "mW/m^2"}


def _of(instrument: str) -> tuple[str, ...]:
    return tuple(n for n, q in QUANTITIES.items() if q.instrument == instrument)


# file family -> the record's quantities in it, and the name of its clock
FAMILIES: dict[str, tuple[tuple[str, ...], str]] = {
    "fgm_brst_l2": (("b",), "Epoch"),
    "edp_brst_l2_dce": (("e", "quality_e"), "mms{p}_edp_epoch_brst_l2"),
    "edp_fast_l2_dce": (("e_fast",), "mms{p}_edp_epoch_fast_l2"),
    "fpi_brst_l2_dis-moms": (_of("DIS"), "Epoch"),
    "fpi_brst_l2_des-moms": (_of("DES"), "Epoch"),
}  # fmt: skip
VERSION = {"fgm_brst_l2": "5.97.0", "edp_brst_l2_dce": "3.0.0", "edp_fast_l2_dce": "3.0.0"}


def write(record: dict[str, xr.DataArray], folder: Path, *, compress: int = 0) -> list[Path]:
    """Write every probe of a record as burst L2 files.

    Args:
        record: ``mms<probe>_<name>``, as ``MmsFiles`` gives.
        folder: takes the files, named in the mission's pattern.
        compress: gzip level; real files are compressed, small ones need not be.

    Returns:
        The files written.

    Raises:
        Refused: the folder cannot be written.
    """
    written = []
    for probe in sorted({k[3] for k in record if k.startswith("mms")}):
        for family, (names, clock) in FAMILIES.items():
            held = {n: record[f"mms{probe}_{n}"] for n in names if f"mms{probe}_{n}" in record}
            if not held:
                continue
            first = next(iter(held.values()))["time"].values[0]
            stamp = str(first.astype("datetime64[s]")).translate({ord(c): None for c in "-:T"})
            name = f"mms{probe}_{family}_{stamp}_v{VERSION.get(family, '3.4.0')}.cdf"
            with files.whole(folder / name) as scratch:
                _write_family(scratch, probe, family, held, clock.format(p=probe), compress)
            written.append(folder / name)
    return written


def _write_family(
    path: Path, probe: str, family: str, held: dict[str, xr.DataArray], clock: str, compress: int
) -> None:
    import cdflib.cdfwrite

    path.unlink()
    out = cdflib.cdfwrite.CDF(path, {"Majority": "row_major", "Compressed": 0})
    out.write_globalattrs(
        {
            "Source_name": {0: f"MMS{probe}>MMS Satellite Number {probe}"},
            "Logical_source": {0: f"mms{probe}_{family}"},
            "TEXT": {0: "Simulated by Terrella in the layout of a level-2 file; not data."},
        }
    )
    first = next(iter(held.values()))
    particles = family.startswith("fpi")
    attrs: dict[str, Any] = {
        "CATDESC": "Nanoseconds since J2000", "UNITS": "ns", "VAR_TYPE": "support_data",
        "FILLVAL": np.int64(-(2**63)), "TIME_BASE": "J2000", "TIME_SCALE": "Terrestrial Time",
    }  # fmt: skip
    if particles:
        attrs |= {"DELTA_PLUS_VAR": "Epoch_plus_var", "DELTA_MINUS_VAR": "Epoch_minus_var"}
        width = 2 * float(first.attrs.get("centre_s", 0.0))
        for name, value in (("Epoch_plus_var", width), ("Epoch_minus_var", 0.0)):
            out.write_var(
                _spec(name, REAL4, [], False, compress),
                {"UNITS": "s"},
                np.array([value], np.float32),
            )
    epoch = utc_to_tt2000(first["time"].values)
    out.write_var(_spec(clock, TT2000, [], True, compress), attrs, epoch)
    for name, array in held.items():
        quantity = QUANTITIES[name]
        values = np.asarray(array.values)
        if name == "b":  # the fourth column is |B|
            values = np.column_stack([values, np.linalg.norm(values, axis=1)])
        kind: int = REAL4
        fill: Any = FILL
        if name.startswith("quality"):
            kind, fill = UINT1, np.uint8(255)
        elif name.startswith("flags"):
            kind, fill = UINT4, np.uint32(2**32 - 1)
        values = values.astype({REAL4: np.float32, UINT1: np.uint8, UINT4: np.uint32}[kind])
        if kind == REAL4:
            values = np.where(np.isfinite(values), values, FILL)
        units = UNITS.get(quantity.units, quantity.units)
        out.write_var(
            _spec(quantity.pattern.format(p=probe, r="brst"), kind, list(values.shape[1:]), True,
                  compress),
            {"CATDESC": quantity.long_name, "UNITS": units, "FILLVAL": fill, "DEPEND_0": clock,
             "VAR_TYPE": "data"},
            values,
        )  # fmt: skip
    out.close()


def utc_to_tt2000(time: np.ndarray) -> np.ndarray:
    """UTC datetime64[ns] to CDF TT2000; the inverse of ``mms_cdf.tt2000_to_utc``."""
    starts, leaps = leap_table()
    utc = np.asarray(time, "datetime64[ns]").astype(np.int64) - J2000.astype(np.int64) + TT_TAI
    which = np.searchsorted(starts - leaps, utc, "right") - 1
    epoch: np.ndarray = utc + leaps[np.maximum(which, 0)]
    return epoch


def _spec(name: str, kind: int, shape: list[int], varies: bool, compress: int) -> dict[str, Any]:
    return {"Variable": name, "Data_Type": kind, "Num_Elements": 1, "Rec_Vary": varies,
            "Var_Type": "zVariable", "Dim_Sizes": shape, "Dim_Vary": [True] * len(shape),
            "Compress": compress}  # fmt: skip
