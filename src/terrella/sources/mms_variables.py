"""The vocabulary of an MMS record: each quantity and the level-2 variable it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terrella.types import Variable

MISSION = np.datetime64("2015-03-12", "ns"), np.datetime64("2100-01-01", "ns")


@dataclass(frozen=True)
class Quantity:
    """One quantity of the record and the L2 variable it comes from.

    Attributes:
        instrument: FGM, EDP, DIS or DES.
        pattern: variable name with {p} for the probe and {r} for the rate.
        columns: leading components kept (FGM's fourth is |B|).
        required: whether a run can do without.
    """

    instrument: str
    pattern: str
    units: str
    shape: tuple[int, ...] = ()
    required: bool = True
    long_name: str = ""


def _moments(s: str, who: str, word: str) -> dict[str, Quantity]:
    n = f"mms{{p}}_{who}_"
    flux = "keV/(cm^2 s sr keV)"

    def q(name: str, units: str, shape: tuple[int, ...], need: bool, text: str) -> Quantity:
        return Quantity(who.upper(), f"{n}{name}_{{r}}", units, shape, need, f"{word} {text}")

    found = {
        f"n{s}": q("numberdensity", "cm-3", (), True, "number density"),
        f"v{s}": q("bulkv_gse", "km s-1", (3,), True, "bulk velocity, GSE"),
        f"p{s}": q("prestensor_gse", "nPa", (3, 3), True, "pressure tensor, GSE"),
        f"n{s}_bg": q("numberdensity_bg", "cm-3", (), False, "background number density"),
        f"p{s}_bg": q("pres_bg", "nPa", (), False, "background pressure"),
        f"q{s}": q("heatq_gse", "mW m-2", (3,), False, "heat flux, GSE"),
        f"flags_{s}": q("errorflags", "1", (), False, "error flags"),
        f"energy_{s}": q("energy", "eV", (32,), False, "energy of the spectra's channels"),
    }
    for part in ("omni",) if s == "i" else ("omni", "par", "perp", "anti"):
        found[f"spectrum_{s}_{part}"] = q(
            f"energyspectr_{part}", flux, (32,), False, f"{part} energy spectrum"
        )
    return found


QUANTITIES: dict[str, Quantity] = {
    "b": Quantity("FGM", "mms{p}_fgm_b_gse_{r}_l2", "nT", (3,), True, "magnetic field, GSE"),
    "e": Quantity("EDP", "mms{p}_edp_dce_gse_{r}_l2", "mV m-1", (3,), True, "electric field, GSE"),
    "e_fast": Quantity(
        "EDP", "mms{p}_edp_dce_gse_fast_l2", "mV m-1", (3,), False, "fast electric field, GSE"
    ),
    "quality_e": Quantity(
        "EDP", "mms{p}_edp_quality_{r}_l2", "1", (), False, "quality (0 worst, 3 best)"
    ),
    **_moments("i", "dis", "ion"),
    **_moments("e", "des", "electron"),
}
CADENCE: dict[str, dict[str, float]] = {
    "brst": {"FGM": 0.0078125, "EDP": 1 / 8192, "DIS": 0.15, "DES": 0.03},
    "fast": {"FGM": 0.0625, "EDP": 0.03125, "DIS": 4.5, "DES": 4.5},
}
# Survey products are called srvy by FGM, fast by the others.
RATES: dict[str, dict[str, tuple[str, ...]]] = {
    "brst": {"FGM": ("brst",), "EDP": ("brst",), "DIS": ("brst",), "DES": ("brst",)},
    "fast": {"FGM": ("srvy", "fast"), "EDP": ("fast",), "DIS": ("fast",), "DES": ("fast",)},
}
PRODUCT = {"FGM": "fgm_{r}_l2", "EDP": "edp_{r}_l2_dce", "DIS": "fpi_{r}_l2_dis-moms",
           "DES": "fpi_{r}_l2_des-moms"}  # fmt: skip
SAME = {"cm^-3": "cm-3", "1/cm^3": "cm-3", "#/cm^3": "cm-3", "km/s": "km s-1", "mV/m": "mV m-1",
        "mW/m^2": "mW m-2", "keV/(cm^2 s sr keV)": "keV/(cm^2 s sr keV)", "cc": "cm-3"}  # fmt: skip


def variables(rate: str = "brst") -> tuple[Variable, ...]:
    """The vocabulary of an MMS record; a record's keys are ``mms<probe>_<name>``."""
    return tuple(
        Variable(name, q.units, q.long_name, CADENCE[rate][q.instrument], q.shape, q.required)
        for name, q in QUANTITIES.items()
    )
