"""Simulated crossings of a Hall reconnection site, as MMS would have measured them.

A two-dimensional picture in units of the ion inertial length d_i, B0, n0 and the Alfven speed V:
an opening Harris sheet Bx = tanh(z / 0.7 h(x)), a reconnected Bz, a quadrupolar By, outflow jets,
inflow, density cavities along the separatrices |z| = a |x|. The current is the curl of that field,
electrons carry it, and E = -v_e x B plus a reconnection field near the X-line. A spacecraft flaps
and drifts through it. The truth is geometry: where the spacecraft is, not what it measures.
Simulated; nothing here is data.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terrella.sources import mms, mms_variables
from terrella.tasks.reconnection import physics
from terrella.tasks.reconnection.clocks import interpolate
from terrella.tasks.reconnection.frames import gsm_angle, turn
from terrella.types import Refused

if TYPE_CHECKING:
    import xarray as xr

REGIONS = ("inflow north", "inflow south", "outflow earthward", "outflow tailward",
           "separatrix north", "separatrix south")  # fmt: skip
START = np.datetime64("2017-07-11T22:33:00", "ns")
BASE = 1 / 128  # s: the picture is evaluated on the magnetometer's clock
CENTRE = {"DIS": 0.075, "DES": 0.015}
ENERGY = np.geomspace(10.0, 30000.0, 32).astype(np.float32)  # eV


@dataclass(frozen=True)
class Site:
    """One reconnection site and one path through it; lengths in d_i, times in s."""

    b0: float  # nT
    n0: float  # cm-3
    slope: float  # tangent of the separatrix' angle
    sheet: float  # half thickness at the X-line
    width: float  # half width of the separatrix layer
    guide: float
    hall: float
    reconnected: float
    jet: float
    inflow: float
    lobe: float  # n / n0
    cavity: float
    heat: float  # Ti / Te
    beta: float  # lobe beta
    x: tuple[float, ...]  # start, speed, amplitude, period, phase
    z: tuple[float, ...]  # offset, then three amplitudes, periods, phases
    turbulence: float
    noise: float
    tilt: tuple[float, float, float]  # of the sheet's axes against GSM, radians about x, y, z
    flow: tuple[float, float, float]  # of the whole sheet, in V

    @property
    def inertial(self) -> float:
        """d_i in km."""
        return 227.7 / float(np.sqrt(self.n0))


def draw_site(rng: np.random.Generator, seconds: float) -> Site:
    """A site and a path, drawn from ranges that the tail observations of Rogers 2023 span."""
    u = rng.uniform
    swings = [v for _ in range(3) for v in (u(0.3, 3.0), u(0.25, 1.2) * seconds, u(0, 2 * np.pi))]
    side = rng.choice([-1.0, 1.0])
    far = u(3, 18)
    drift = -side * u(0.6, 2.0) * far / seconds
    return Site(
        b0=float(np.exp(rng.normal(np.log(17), 0.3))),
        n0=float(np.exp(rng.normal(np.log(0.25), 0.6))),
        slope=u(0.15, 0.45),
        sheet=u(0.5, 1.2),
        width=u(0.25, 0.45),
        guide=rng.normal(0, 0.1),
        hall=u(0.2, 0.5),
        reconnected=u(0.1, 0.25),
        jet=u(0.5, 1.0),
        inflow=u(0.05, 0.15),
        lobe=u(0.08, 0.25),
        cavity=u(0.2, 0.6),
        heat=u(3, 7),
        beta=u(0.02, 0.1),
        x=(side * far, drift, u(0, 2), u(0.2, 0.6) * seconds, u(0, 6)),
        z=(rng.normal(0, 1.0), *swings),
        turbulence=u(0.02, 0.08),
        noise=u(0.5, 1.5),
        tilt=tuple(rng.normal(0, np.radians([8, 5, 10]))),
        flow=tuple(rng.normal(0, [0.1, 0.05, 0.03])),
    )


def position(site: Site, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the spacecraft is, (x, z) in d_i from the X-line, at ``t`` seconds."""
    start, speed, amplitude, period, phase = site.x
    x = start + speed * t + amplitude * np.sin(2 * np.pi * t / period + phase)
    z = np.full_like(t, site.z[0])
    for k in range(3):
        amplitude, period, phase = site.z[1 + 3 * k : 4 + 3 * k]
        z = z + amplitude * np.sin(2 * np.pi * t / period + phase)
    return x, z


def region(site: Site, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The truth: index into ``REGIONS`` by geometry."""
    above = np.abs(z) - site.slope * np.abs(x)
    inflow, outflow = np.where(z > 0, 0, 1), np.where(x > 0, 2, 3)
    sheath = np.where(z > 0, 4, 5)
    return np.where(above > site.width, inflow, np.where(above < -site.width, outflow, sheath))


def field(site: Site, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Magnetic field at (x, z), in B0, GSM axes, (samples, 3)."""
    h = _opening(site, x)
    u = z / h
    side = np.tanh(x / 1.5)
    bx = np.tanh(u / 0.7)
    by = site.guide + site.hall * side * u * np.exp((1 - u**2) / 2)
    bz = site.reconnected * side / np.cosh(u / 1.5) ** 2
    return np.stack([bx, by, bz], axis=1)


def plasma(site: Site, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
    """Everything else of the picture at (x, z), in normal units of d_i, B0, n0, V.

    Returns:
        b, j, vi, ve, e, (samples, 3); n, pi, pe (samples,), pressures in B0^2/mu0.
    """
    step = 0.02
    b = field(site, x, z)
    dx = (field(site, x + step, z) - field(site, x - step, z)) / (2 * step)
    dz = (field(site, x, z + step) - field(site, x, z - step)) / (2 * step)
    j = np.stack([-dz[:, 1], dz[:, 0] - dx[:, 2], dx[:, 1]], axis=1)
    h = _opening(site, x)
    u = np.abs(z) / h
    edge = np.exp(-(((np.abs(z) - site.slope * np.abs(x)) / (2 * site.width)) ** 2))
    n = (site.lobe + (1 - site.lobe) / np.cosh(z / (0.8 * h)) ** 2) * (1 - site.cavity * edge)
    inside = 1 / (1 + np.exp((u - 1) / 0.15))
    vi = np.stack([site.jet * np.tanh(x / 5) * inside, np.zeros_like(x),
                   -site.inflow * np.tanh(z / h) * (1 - inside)], axis=1)  # fmt: skip
    ve = vi - j / n[:, None]
    e = -np.cross(ve, b)
    e[:, 1] += 0.1 * np.exp(-((x / 2) ** 2) - (z / site.sheet) ** 2)
    thermal = np.maximum(0.5 * (1 + site.beta) - 0.5 * (b[:, 0] ** 2 + b[:, 2] ** 2), site.beta / 2)
    pi = thermal * site.heat / (1 + site.heat)
    return {"b": b, "j": j, "vi": vi, "ve": ve, "e": e, "n": n, "pi": pi, "pe": thermal - pi}


def _opening(site: Site, x: np.ndarray) -> np.ndarray:
    return np.sqrt(site.sheet**2 + (site.slope * x) ** 2)


def red_noise(rng: np.random.Generator, samples: int, columns: int, longest: float) -> np.ndarray:
    """Noise with a k^-5/3 spectrum up to ``longest`` seconds, unit variance, (samples, columns)."""
    frequency = np.fft.rfftfreq(samples, BASE)
    shape = np.where(frequency > 0, np.maximum(frequency, 1 / longest), np.inf) ** (-5 / 6)
    phases = rng.normal(size=(2, columns, len(frequency)))
    noise = np.fft.irfft(shape * (phases[0] + 1j * phases[1]), samples).T
    return np.asarray(noise / noise.std(axis=0))


def simulate(
    seed: int = 0,
    hours: float = 0.05,
    probes: str = "1",
    field_rate: float = 8192.0,
    b0: float = 0.0,
    n0: float = 0.0,
) -> dict[str, xr.DataArray]:
    """A crossing as an MMS record with its truth.

    Args:
        seed: of the site, the path and the noise.
        hours: length of the interval.
        probes: spacecraft, ``1,2,3,4``; they fly some 20 km apart.
        field_rate: samples a second of the burst electric field.
        b0, n0: nT and cm-3 instead of drawn ones.

    Returns:
        The quantities of ``sources.mms`` named ``mms<probe>_<name>``, and ``mms<probe>_truth``,
        the region by geometry on the electron clock with B0 and n0 in its attributes.

    Raises:
        Refused: fewer than ten seconds, or more than two hours.
    """
    if not 10 / 3600 <= hours <= 2:
        raise Refused(f"hours {hours}: a burst interval is between 10 s (0.0028) and 2 hours long")
    rng = np.random.default_rng(seed)
    site = draw_site(rng, hours * 3600)
    site = dataclasses.replace(site, b0=b0 or site.b0, n0=n0 or site.n0)
    offset = rng.normal(0, 20 / site.inertial, size=(5, 2))
    record: dict[str, xr.DataArray] = {}
    for probe in probes.replace(",", ""):
        if probe not in "1234":
            raise Refused(f"probe {probe}: MMS has probes 1, 2, 3 and 4")
        own = np.random.default_rng((seed, int(probe)))
        fly = _Flight(site, hours * 3600, offset[int(probe)], own, f"simulated-{seed}")
        record |= {f"mms{probe}_{k}": v for k, v in fly.measure(field_rate).items()}
    return mms.with_lead(record)


class _Flight:
    """One spacecraft's measurements; a class only to share what many lines need."""

    def __init__(
        self, site: Site, seconds: float, offset: np.ndarray, rng: np.random.Generator, name: str
    ) -> None:
        self.site, self.rng, self.seconds, self.name = site, rng, seconds, name
        t = np.arange(0.0, seconds + 2 * BASE, BASE)
        self.time = START + np.round(t * 1e9).astype("timedelta64[ns]")
        x, z = position(site, t)
        self.x, self.z = x + offset[0], z + offset[1]
        self.angle = gsm_angle(self.time)
        p = plasma(site, self.x, self.z)
        red = red_noise(rng, len(t), 10, seconds / 6)
        speed = float(physics.alfven_speed(site.b0, site.n0))
        n = p["n"] * np.exp(2 * site.turbulence * red[:, 9])
        self.b = self._gse(site.b0 * (p["b"] + site.turbulence * red[:, :3]))
        self.vi = self._gse(speed * (p["vi"] + site.flow + 1.5 * site.turbulence * red[:, 3:6]))
        self.ve = self._gse(speed * (p["ve"] + site.flow + 1.5 * site.turbulence * red[:, 3:6]))
        # E in mV/m from V B0 in km/s nT.
        carried = -np.cross(np.array(site.flow), p["b"])
        frozen = speed * (p["e"] + carried + 0.5 * site.turbulence * red[:, 6:9]) * site.b0 * 1e-3
        self.e = self._gse(frozen)
        unit = 2 * physics.MAGNETIC * site.b0**2  # nPa in B0^2/mu0
        self.n, self.pi, self.pe = site.n0 * n, unit * p["pi"], unit * p["pe"]

    def _gse(self, own: np.ndarray) -> np.ndarray:
        """From the sheet's own axes, tilted against GSM, into GSE."""
        from scipy.spatial.transform import Rotation

        return turn(Rotation.from_euler("xyz", self.site.tilt).apply(own), -self.angle)

    def measure(self, field_rate: float) -> dict[str, xr.DataArray]:
        site, rng = self.site, self.rng
        out = {"b": self._array("b", self.time, self.b + rng.normal(0, 0.03, self.b.shape))}
        for name, rate in (("e", field_rate), ("e_fast", 32.0)):
            t = np.arange(0.0, self.seconds, 1 / rate) + rng.uniform(0, 1 / rate)
            time = START + np.round(t * 1e9).astype("timedelta64[ns]")
            waves = 0.6 if name == "e" else 0.15  # the fast product is band-limited
            e = interpolate(self.time, self.e, time)
            noise = rng.standard_normal(e.shape, dtype=np.float32) * waves * site.noise
            out[name] = self._array(name, time, e + noise)
        out["quality_e"] = self._array("quality_e", out["e"].time.values, np.full(len(out["e"]), 3))
        return out | self._particles("i", 0.15, "DIS") | self._particles("e", 0.03, "DES")

    def _particles(self, s: str, step: float, who: str) -> dict[str, xr.DataArray]:
        site, rng = self.site, self.rng
        begin = np.arange(rng.uniform(0, step), self.seconds - step, step)
        time = START + np.round(begin * 1e9).astype("timedelta64[ns]")
        centre = time + np.timedelta64(int(CENTRE[who] * 1e9), "ns")
        n, v, p = (
            interpolate(self.time, q, centre)
            for q in (self.n, getattr(self, f"v{s}"), getattr(self, f"p{s}"))
        )
        b = physics.unit(interpolate(self.time, self.b, centre))
        hot = np.sqrt(p / n * physics.EV)  # speeds of noise follow the thermal spread
        count = np.sqrt(0.25 / n) * site.noise
        n = n * np.exp(rng.normal(0, 0.03, len(n)) * count)
        spread = (4.0 if s == "e" else 0.4) * hot / np.sqrt(40) * count
        v = v + rng.normal(size=v.shape) * spread[:, None]
        axes = np.einsum("ti,tj->tij", b, b)
        tensor = p[:, None, None] * (np.eye(3) + 0.1 * (axes - np.eye(3) / 3))
        tensor = tensor * np.exp(rng.normal(0, 0.03, len(n)) * count)[:, None, None]
        found: dict[str, np.ndarray] = {}
        background = np.full(len(n), 0.05 * site.n0 if s == "i" else 0.0)
        floor = background * 0.1  # nPa a cm-3 of background, an energetic one
        if s == "i":
            n, v, tensor = with_background(n, v, tensor, background, floor)
        found |= {f"n{s}": n, f"v{s}": v, f"p{s}": tensor, f"n{s}_bg": background,
                  f"p{s}_bg": floor, f"q{s}": 0.02 * v * p[:, None] * 1e-3,
                  f"flags_{s}": np.zeros(len(n)),
                  f"energy_{s}": np.broadcast_to(ENERGY, (len(n), 32))}  # fmt: skip
        heat = (p / n * physics.EV)[:, None]
        # Energy flux of a Maxwellian; the scale is right to a factor of a few, the shape exactly.
        flux = 2e7 * n[:, None] * (ENERGY / heat) ** 2 * np.exp(-ENERGY / heat)
        flux = flux * (1.0 if s == "i" else 43.0) * np.sqrt(heat / 1e3)
        for part in ("omni",) if s == "i" else ("omni", "par", "perp", "anti"):
            found[f"spectrum_{s}_{part}"] = flux * np.exp(rng.normal(0, 0.1, flux.shape))
        out = {k: self._array(k, time, v, CENTRE[who]) for k, v in found.items()}
        if s == "e":
            place = [np.interp((centre - START) / np.timedelta64(1, "s"),
                               (self.time - START) / np.timedelta64(1, "s"), q)
                     for q in (self.x, self.z)]  # fmt: skip
            out["truth"] = self._truth(time, place)
        return out

    def _truth(self, time: np.ndarray, place: list[np.ndarray]) -> xr.DataArray:
        import xarray as xr

        attrs = {"units": "1", "long_name": "region by geometry (simulated)",
                 "regions": ", ".join(REGIONS), "b0": self.site.b0, "n0": self.site.n0,
                 "path": self.name, "centre_s": CENTRE["DES"]}  # fmt: skip
        return xr.DataArray(region(self.site, *place), {"time": time}, ("time",), attrs=attrs)

    def _array(
        self, name: str, time: np.ndarray, values: np.ndarray, centre: float = 0.0
    ) -> xr.DataArray:
        import xarray as xr

        q = mms_variables.QUANTITIES[name]
        dims = ("time", *(f"c{k}" for k in range(len(q.shape))))
        kind = np.uint32 if name.startswith(("flags", "quality")) else np.float32
        attrs = {"units": q.units, "long_name": q.long_name, "centre_s": centre}
        return xr.DataArray(values.astype(kind), {"time": time}, dims, attrs=attrs)


def with_background(
    n: np.ndarray, v: np.ndarray, p: np.ndarray, n_bg: np.ndarray, p_bg: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put a background into ion moments: the inverse of ``physics.without_background``."""
    total = n + n_bg
    slowed = v * (n / total)[:, None]
    mine = physics.DYNAMIC * np.einsum("t,ti,tj->tij", n, v, v)
    theirs = physics.DYNAMIC * np.einsum("t,ti,tj->tij", total, slowed, slowed)
    return total, slowed, p + mine - theirs + p_bg[:, None, None] * np.eye(3)


def export(record: dict[str, xr.DataArray], path: Path) -> list[Path]:
    """Write a scene as level-2 CDF files, and the truth of each probe as NetCDF beside them.

    Args:
        record: from ``simulate``.
        path: folder to write into; a suffix is dropped (``scene.nc`` becomes ``scene/``).

    Returns:
        The files written.
    """
    import xarray as xr

    from terrella import files
    from terrella.sources.mms_write import write

    folder = path.with_suffix("") if path.suffix else path
    written = write(record, folder)
    for name, array in record.items():
        if name.startswith("mms") and name.endswith("_truth"):
            written.append(folder / f"{name}.nc")
            data = xr.Dataset({name: array}).assign_attrs(title="true regions of a simulated scene")
            encoding = {"time": {"units": "nanoseconds since 1970-01-01", "dtype": "int64"}}
            with files.whole(written[-1]) as scratch:
                data.to_netcdf(scratch, engine="h5netcdf", encoding=encoding)
    return written
