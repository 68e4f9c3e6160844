"""MMS burst data straight from NASA's CDAWeb, through the speasy library.

An optional extra (``pip install terrella[sources]``); nothing is imported, and no connection made,
until data are asked for. Tested against a local stand-in that answers as the library does; the
service itself was not within reach of the tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from terrella.sources.mms import joined, mask_flagged, with_lead
from terrella.sources.mms_cdf import clean
from terrella.sources.mms_variables import QUANTITIES, SAME
from terrella.types import NoData, Refused, Variable

if TYPE_CHECKING:
    import xarray as xr

# Data set of each instrument at CDAWeb; EDP's fast product is a set of its own.
DATASETS = {"FGM": "MMS{p}_FGM_BRST_L2", "EDP": "MMS{p}_EDP_BRST_L2_DCE",
            "DIS": "MMS{p}_FPI_BRST_L2_DIS-MOMS", "DES": "MMS{p}_FPI_BRST_L2_DES-MOMS"}  # fmt: skip
FAST = "MMS{p}_EDP_FAST_L2_DCE"
CENTRE = {"DIS": 0.075, "DES": 0.015}  # s; the service does not hand over Epoch_plus_var
LONGEST = np.timedelta64(2, "h")


@dataclass(frozen=True)
class CdaWeb:
    """A source over CDAWeb.

    Attributes:
        probes: spacecraft numbers.
        keep_flagged: keep moments whose error flags call them unusable.
        get: ``(product, start, stop) -> variable`` with ``time``, ``values``, ``unit``; speasy's
            ``get_data`` if None.
    """

    probes: tuple[str, ...] = ("1",)
    keep_flagged: bool = False
    get: Callable[..., Any] | None = None

    def fetch(
        self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
    ) -> dict[str, xr.DataArray]:
        """Download [start, stop); see ``terrella.types.Source``.

        Raises:
            NoData: the archive has nothing for an instrument that is needed.
            Refused: the library is not installed, the service fails, or the span is too long.
        """
        if stop - start > LONGEST:
            raise Refused(
                "cdaweb: no more than two hours of burst data at once; give --event, or --start "
                "and --stop"
            )
        get = self.get or _library()
        record: dict[str, xr.DataArray] = {}
        for probe in self.probes:
            for variable in variables:
                quantity = QUANTITIES.get(variable.name)
                if quantity is None:
                    continue
                array = self._one(get, probe, variable.name, start, stop)
                if array is not None:
                    record[f"mms{probe}_{variable.name}"] = array
                elif quantity.required:
                    raise NoData(
                        f"MMS{probe} {quantity.instrument}: CDAWeb has no burst data "
                        f"in {start.astype('datetime64[s]')} to {stop.astype('datetime64[s]')}"
                    )
            if not self.keep_flagged:
                mask_flagged(record, probe)
        return with_lead(record)

    def _one(
        self, get: Callable[..., Any], probe: str, name: str, start: np.datetime64,
        stop: np.datetime64,
    ) -> xr.DataArray | None:  # fmt: skip
        quantity = QUANTITIES[name]
        dataset = FAST if name == "e_fast" else DATASETS[quantity.instrument]
        product = f"cda/{dataset.format(p=probe)}/{quantity.pattern.format(p=probe, r='brst')}"
        edges = [t.astype("datetime64[us]").item() for t in (start, stop)]
        try:
            found = get(product, *edges)
        except Exception as error:
            if not quantity.required:
                return None
            raise Refused(f"{product}: CDAWeb could not be read ({_first_line(error)})") from None
        if found is None or not len(found.time):
            return None
        unit = str(getattr(found, "unit", "") or "").strip()
        if unit and quantity.units != "1" and SAME.get(unit, unit) != quantity.units:
            raise Refused(f"{product} is in {unit!r}, expected {quantity.units!r}")
        time = np.asarray(found.time, "datetime64[ns]")
        fill = (getattr(found, "meta", None) or {}).get("FILLVAL")
        values = np.asarray(found.values)
        values = clean(values, {"FILLVAL": None if fill is None else np.ravel(fill)[0]})
        values = values.reshape(len(time), -1)[:, : int(np.prod(quantity.shape)) or 1]
        values = values.reshape(len(time), *quantity.shape)
        inside = (time >= start) & (time < stop)
        if not inside.any():
            return None
        centre = CENTRE.get(quantity.instrument, 0.0)
        return joined([(time[inside], values[inside], centre)], quantity)


def _library() -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = importlib.import_module("speasy").get_data
    except ImportError:
        raise Refused(
            "cdaweb: needs the speasy library; install it with `pip install 'terrella[sources]'`"
        ) from None
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
