"""Moments without a network: whatever instruments are there, read, corrected and written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def moments(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT ...", help="CDF files or folders")],
    out: Annotated[Path, typer.Option(help="folder for the NetCDF file")],
    rate: Annotated[str, typer.Option(help="brst or fast")] = "brst",
    keep_flagged: Annotated[bool, typer.Option(help="keep moments flagged as unusable")] = False,
) -> None:
    """Read MMS files of any instruments, take the ion background out, write NetCDF with units.

    Times are the centres of accumulations. Nothing is labelled and no instrument is required.

    Example: `terrella reconnection moments mms1_fpi_*_dis-moms_*.cdf --rate fast --out out/`
    """
    from terrella import product
    from terrella.sources import mms, mms_variables
    from terrella.types import NoData, Product, Refused
    from terrella.verbs import warnings_as_lines

    if rate not in mms_variables.RATES:
        raise Refused(f"--rate {rate}: choose brst or fast")
    found, refused = mms.index(inputs)
    if refused:
        raise Refused(refused[0][1])
    names = mms.every_name(found)
    series: dict[str, Any] = {}
    probes = sorted({p for f in found for p in f.probes})
    for probe in probes:
        held = [v for v in mms_variables.variables(rate) if _held(v.name, probe, rate, names)]
        source = mms.MmsFiles(found, (probe,), rate, keep_flagged)
        record = source.fetch(held, *mms_variables.MISSION)
        with warnings_as_lines():
            series |= _on_clocks(probe, {k: v for k, v in record.items() if k.startswith("mms")})
    if not series:
        raise NoData(f"{inputs[0]}: no {rate} data of FGM, EDP or FPI moments there")
    import xarray as xr

    data = xr.Dataset(series)
    for name in data.coords:
        data[name].encoding["units"] = "nanoseconds since 1970-01-01"
    data = data.assign_attrs(product.history("reconnection moments", {}))
    first = str(min(data[c].values[0] for c in data.coords).astype("datetime64[s]"))
    stem = f"mms{''.join(probes)}_{first.translate({ord(c): None for c in '-:'}).replace('T', '_')}"
    print(product.write(Product(data), out, stem, "moments")[0])


def _held(name: str, probe: str, rate: str, names: frozenset[str]) -> bool:
    from terrella.sources.mms_variables import QUANTITIES, RATES

    quantity = QUANTITIES[name]
    words = RATES[rate][quantity.instrument]
    return any(quantity.pattern.format(p=probe, r=word) in names for word in words)


def _on_clocks(probe: str, record: dict[str, Any]) -> dict[str, Any]:
    """Arrays on a time dimension named after probe and instrument, corrected ions added."""
    import numpy as np

    from terrella.sources import mms_variables
    from terrella.tasks.reconnection import physics

    ions = [f"mms{probe}_{k}" for k in ("ni", "vi", "pi")]
    grounds = [record.get(f"mms{probe}_{k}") for k in ("ni_bg", "pi_bg")]
    fixed = None
    if all(k in record for k in ions):
        fixed = physics.ions(
            f"MMS{probe}", *(record[k].values for k in ions),
            *(None if g is None else g.values for g in grounds),
        )  # fmt: skip
    if fixed is not None and fixed.removed:
        for name, values in (("ni", fixed.density), ("vi", fixed.velocity), ("pi", fixed.pressure)):
            made = record[f"mms{probe}_{name}"].copy(data=values.astype(np.float32))
            made.attrs["long_name"] += f", {fixed.said}; NaN where the background is unknown"
            record[f"mms{probe}_{name}_corrected"] = made
    out: dict[str, Any] = {}
    for name, array in record.items():
        short = name[5:].removesuffix("_corrected")
        clock = f"time_mms{probe}_{mms_variables.QUANTITIES[short].instrument.lower()}"
        if short in ("e", "e_fast", "quality_e"):
            clock += "_fast" if short == "e_fast" else ""
        shift = np.timedelta64(round(array.attrs["centre_s"] * 1e9), "ns")
        moved = array.assign_coords(time=array["time"].values + shift).rename(time=clock)
        sizes = {d: f"{d}_{moved.sizes[d]}" for d in moved.dims if d != clock}
        moved = moved.rename(sizes)
        moved.attrs = {k: v for k, v in array.attrs.items() if k != "centre_s"}
        out[name] = moved
    return out
