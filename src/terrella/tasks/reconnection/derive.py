"""Every derived quantity of one probe, and the normalised features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from terrella.tasks.reconnection import physics
from terrella.tasks.reconnection.clocks import bin_mean, interpolate, segments
from terrella.tasks.reconnection.frames import gsm_angle, turn
from terrella.tasks.reconnection.scale import Scale, check, estimate, lobe_field, settle
from terrella.types import NoData, Refused

if TYPE_CHECKING:
    import xarray as xr

FEATURES = ("Bx", "-Bz", "By", "Ex", "-Ez", "Ey", "ni", "ne",
            "vix", "-viz", "viy", "vex", "-vez", "vey")  # fmt: skip
PUBLISHED_SHIFT = 0.075  # s, what the authors add to both DIS and DES
GAP = 2.5  # steps of the electron clock above which a context is broken
Array = np.ndarray


@dataclass(frozen=True)
class Crossing:
    """Everything known of one probe on its electron clock, and its ions on theirs.

    Attributes:
        probe: ``1`` to ``4``.
        time: (rows,) electron clock, after the shift to the centre.
        ion_time: (ion rows,) ion clock.
        values: name -> (array, units, long name), rows first on the electron clock.
        ions: the same on the ion clock.
        features: (rows, 14) float32, NaN where an input is missing.
        segment: (rows,) number of the unbroken stretch.
        scale: what the features were normalised by.
        background_unknown: (rows,) True where the ion background was not known.
        notes: attribute name -> what a reader of the product must know.
    """

    probe: str
    time: Array
    ion_time: Array
    values: dict[str, tuple[Array, str, str]]
    ions: dict[str, tuple[Array, str, str]]
    features: Array
    segment: Array
    scale: Scale
    background_unknown: Array
    notes: dict[str, str] = field(default_factory=dict)


def cross(record: dict[str, xr.DataArray], probe: str, options: Any) -> Crossing:
    """Derive every quantity of one probe; see ``Crossing``."""
    get = _Getter(record, probe, options.timing)
    check(options)
    if get.has("features"):
        return _features_only(get, options)
    clock = get.time("ne")
    ions = _ions(get)
    magnetic = bin_mean(*get("b"), clock, _half(clock))
    if not np.isfinite(magnetic).any():
        raise NoData(f"MMS{probe} FGM and DES do not overlap in time: {get.spans('b', 'ne')}")
    angle = gsm_angle(clock)
    b = turn(interpolate(*get("b"), clock), angle)
    burst = get("e")
    if not np.isfinite(burst[1]).any():
        raise NoData(
            f"MMS{probe} EDP: the burst electric field is fill throughout; nothing to label"
        )
    e = turn(interpolate(*burst, clock), angle)
    if not np.isfinite(e).any():
        raise NoData(f"MMS{probe} EDP and DES do not overlap in time: {get.spans('e', 'ne')}")
    vi = turn(interpolate(get.time("ni"), ions.velocity, clock), angle)
    ni = interpolate(get.time("ni"), ions.density, clock)
    if not np.isfinite(ni).any():
        raise NoData(f"MMS{probe} DIS and DES do not overlap in time: {get.spans('ni', 'ne')}")
    ne, ve = get("ne")[1].astype(float), turn(get.at("ve", clock), angle)
    pe, pi = get.at("pe", clock), interpolate(get.time("ni"), ions.pressure, clock)
    lobe = lobe_field(magnetic, pi, pe)
    try:
        seen: Scale | None = estimate(clock, magnetic, ni, lobe)
    except NoData:
        seen = None
    scale = settle(options, (clock[0], clock[-1]), seen)
    if scale.suspect:
        warnings.warn(
            f"MMS{probe}: B0 {scale.b0:.1f} nT ({scale.origin}) is contradicted by pressure "
            f"balance, which gives {scale.b0_seen:.1f} nT; expect low confidence",
            UserWarning,
            stacklevel=2,
        )
    values = {
        "b_gsm": (b, "nT", "magnetic field, GSM"),
        "e_gsm": (e, "mV m-1", "burst electric field interpolated to the electron clock, GSM"),
        "ni": (ni, "cm-3", f"ion number density, {ions.said}"),
        "ne": (ne, "cm-3", "electron number density"),
        "vi_gsm": (vi, "km s-1", f"ion bulk velocity, {ions.said}, GSM"),
        "ve_gsm": (ve, "km s-1", "electron bulk velocity, GSM"),
        "lobe_field": (lobe, "nT", "lobe field by total-pressure balance"),
        **_energy(get, magnetic, ne, vi, ve, angle),
        **_electrons(get, magnetic, ne),
    }
    return Crossing(
        probe, clock, get.time("ni"), values, _ion_values(get, ions, magnetic, clock),
        normalise(b, e, ni, ne, vi, ve, scale), segments(clock, GAP * _step(clock)), scale,
        _background_unknown(get, ions, clock), {"ion_background": _background_note(ions)},
    )  # fmt: skip


def _features_only(get: _Getter, options: Any) -> Crossing:
    """Network inputs given as such: there is nothing to derive and nothing to normalise."""
    time, features = get("features")
    given = [n for n in ("b0", "n0", "b0_error", "n0_error") if getattr(options, n)]
    if given:
        flags = ", ".join(f"--{n.replace('_', '-')}" for n in given)
        warnings.warn(
            f"MMS{get.probe}: the inputs are normalised already; {flags} has no effect on them",
            UserWarning,
            stacklevel=3,
        )
    assumed = get.array("features").attrs.get("time_assumed")
    if assumed:
        warnings.warn(f"MMS{get.probe}: {assumed}", UserWarning, stacklevel=3)
    if features.shape[1:] != (len(FEATURES),):
        raise Refused(
            f"MMS{get.probe}: features need {len(FEATURES)} columns, have {features.shape[1:]}"
        )
    step = _step(time) if len(time) > 1 else 0.03
    nan = float("nan")
    scale = Scale(nan, nan, origin="features given as normalised")
    return Crossing(get.probe, time, time[:0], {}, {}, features.astype(np.float32),
                    segments(time, GAP * step), scale, np.zeros(len(time), bool),
                    {"time_assumed": assumed} if assumed else {})  # fmt: skip


def normalise(
    b: Array, e: Array, ni: Array, ne: Array, vi: Array, ve: Array, scale: Scale
) -> Array:
    """The 14 features, in GSM turned to the simulation's axes (x, -z, y).

    Waters et al. 2025, doi:10.1029/2025JA034383: B/B0, E/(V B0), n/n0, v/V, with
    V = B0/sqrt(n0 m_p mu0) and the electron velocity further divided by sqrt(1836).

    Args:
        b: nT, (rows, 3) GSM; e: mV/m; ni, ne: cm-3, (rows,); vi, ve: km/s.
        scale: B0 and n0.

    Returns:
        (rows, 14) float32.
    """
    speed = scale.speed
    field = e * 1e-3 / (speed * 1e3 * scale.b0 * 1e-9)
    columns = [
        _turned(b / scale.b0), _turned(field), np.stack([ni, ne], axis=1) / scale.n0,
        _turned(vi / speed), _turned(ve / speed / np.sqrt(physics.MASS_RATIO)),
    ]  # fmt: skip
    return np.concatenate(columns, axis=1).astype(np.float32)


def _turned(v: Array) -> Array:
    return np.stack([v[:, 0], -v[:, 2], v[:, 1]], axis=1)


class _Getter:
    """Arrays of one probe by short name, on the clock that ``timing`` asks for."""

    def __init__(self, record: dict[str, xr.DataArray], probe: str, timing: str) -> None:
        self.record, self.probe, self.timing = record, probe, timing

    def has(self, name: str) -> bool:
        return f"mms{self.probe}_{name}" in self.record

    def array(self, name: str) -> xr.DataArray:
        try:
            return self.record[f"mms{self.probe}_{name}"]
        except KeyError:
            raise NoData(f"MMS{self.probe}: {name} is missing from the record") from None

    def time(self, name: str) -> Array:
        array = self.array(name)
        shift = float(array.attrs.get("centre_s", 0.0))
        if self.timing == "published" and shift:
            shift = PUBLISHED_SHIFT
        return array["time"].values + np.timedelta64(round(shift * 1e9), "ns")

    def __call__(self, name: str) -> tuple[Array, Array]:
        return self.time(name), self.array(name).values

    def at(self, name: str, clock: Array) -> Array:
        """Values at the very instants of ``clock``; NaN where there is no sample at one."""
        time, values = self(name)
        if len(time) == len(clock) and (time == clock).all():
            return values
        place = np.minimum(np.searchsorted(time, clock), len(time) - 1)
        out = np.full((len(clock), *values.shape[1:]), np.nan)
        same = time[place] == clock
        out[same] = values[place[same]]
        return out

    def spans(self, *names: str) -> str:
        told = []
        for name in names:
            time = self.time(name)
            told.append(f"{name} {np.datetime64(time[0], 's')} to {np.datetime64(time[-1], 's')}")
        return ", ".join(told)


def _ions(get: _Getter) -> physics.Ions:
    clock = get.time("ni")
    background, pressure = (get.at(k, clock) if get.has(k) else None for k in ("ni_bg", "pi_bg"))
    n, v, p = (get.at(k, clock) for k in ("ni", "vi", "pi"))
    return physics.ions(f"MMS{get.probe}", n, v, p, background, pressure)


def _background_unknown(get: _Getter, ions: physics.Ions, clock: Array) -> Array:
    """Electron samples whose ions come, in part, from where the background is not known."""
    unknown = np.asarray(ions.unknown, float)
    near: Array = interpolate(get.time("ni"), unknown, clock) > 0
    return near


def _background_note(ions: physics.Ions) -> str:
    count = int(np.asarray(ions.unknown).sum()) if ions.removed else 0
    return f"{ions.said}; unknown and left NaN in {count} ion samples" if count else ions.said


def _energy(
    get: _Getter, magnetic: Array, ne: Array, vi: Array, ve: Array, angle: Array
) -> dict[str, tuple[Array, str, str]]:
    """Current, E' and J.E with all parts, from fields averaged onto the electron clock, GSM."""
    clock = get.time("ne")
    # Fast-rate E as published; the burst field serves where the fast product is absent or empty.
    name = "e_fast" if get.has("e_fast") and np.isfinite(get("e_fast")[1]).any() else "e"
    electric = turn(bin_mean(*get(name), clock, _half(clock)), angle)
    b = turn(magnetic, angle)
    ji, je = physics.current(ne, vi, ve)
    prime = physics.electron_frame_field(electric, ve, b)
    of = "fast" if name == "e_fast" else "burst"
    out = {
        "j_gsm": (ji + je, "uA m-2", "current density e ne (vi - ve), GSM"),
        "e_mean_gsm": (electric, "mV m-1", f"{of} electric field, mean over each bin, GSM"),
        "e_prime_gsm": (prime, "mV m-1", "E' = E + ve x B, GSM"),
    }
    for who, j in (("", ji + je), ("_ion", ji), ("_electron", je)):
        for word, name, seen in (("E'", "je_prime", prime), ("E", "je", electric)):
            parts = physics.work(j, seen, b)
            for part, value in zip(("", "_par", "_perp"), parts, strict=True):
                text = f"J.{word}{who.replace('_', ', ')}{part.replace('_', ', ')}"
                out[f"{name}{who}{part}"] = (value, "nW m-3", text)
    return out


def _electrons(get: _Getter, magnetic: Array, ne: Array) -> dict[str, tuple[Array, str, str]]:
    pe = get.at("pe", get.time("ne"))
    along, across = physics.temperatures(pe, ne, magnetic)
    out = {
        "te_par": (along, "eV", "electron temperature along B"),
        "te_perp": (across, "eV", "electron temperature across B"),
        "pe_gse": (pe, "nPa", "electron pressure tensor, GSE"),
    }
    return out | _carried(get, "e", "electron", len(ne))


def _ion_values(
    get: _Getter, ions: physics.Ions, magnetic: Array, clock: Array
) -> dict[str, tuple[Array, str, str]]:
    field = interpolate(clock, magnetic, get.time("ni"), gap=1.0)
    along, across = physics.temperatures(ions.pressure, ions.density, field)
    out = {
        "ni_ion": (ions.density, "cm-3", f"ion number density, {ions.said}"),
        "vi_gse_ion": (ions.velocity, "km s-1", f"ion bulk velocity, {ions.said}, GSE"),
        "pi_gse_ion": (ions.pressure, "nPa", f"ion pressure tensor, {ions.said}, GSE"),
        "ti_par_ion": (along, "eV", f"ion temperature along B, {ions.said}"),
        "ti_perp_ion": (across, "eV", f"ion temperature across B, {ions.said}"),
    }
    carried = _carried(get, "i", "ion", len(ions.density))
    return out | {f"{k}_ion": v for k, v in carried.items()}


def _carried(get: _Getter, s: str, word: str, rows: int) -> dict[str, tuple[Array, str, str]]:
    """What is handed on as measured: heat flux, spectra, error flags."""
    names = {f"q{s}": f"q{s}_gse", f"energy_{s}": "energy",
             f"flags_{s}": f"flags_{word}"}  # fmt: skip
    names |= {f"spectrum_{s}_{p}": f"spectrum_{p}" for p in ("omni", "par", "perp", "anti")}
    out = {}
    for name, called in names.items():
        if get.has(name) and len(get.array(name)) == rows:
            array = get.array(name)
            out[called] = (array.values, array.attrs["units"], array.attrs["long_name"])
    return out


def _step(clock: Array) -> float:
    if len(clock) < 2:
        raise NoData("fewer than two electron samples in the interval")
    return float(np.median(np.diff(clock.astype(np.int64)))) / 1e9


def _half(clock: Array) -> float:
    return 0.75 * _step(clock)
