"""Plasma quantities from MMS moments and fields: pure functions, units in and out stated.

Vectors are (time, 3), tensors (time, 3, 3), scalars (time,). Units throughout: B nT, E mV/m,
n cm-3, V km/s, P nPa, T eV, J uA/m2, J.E nW/m3.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

E_CHARGE = 1.602176634e-19  # C
M_PROTON = 1.67262192e-27  # kg
MU0 = 4e-7 * np.pi  # H/m
MASS_RATIO = 1836.0  # proton to electron, as the published normalisation rounds it
DYNAMIC = M_PROTON * 1e21  # nPa per cm-3 (km/s)^2
CURRENT = E_CHARGE * 1e15  # uA/m2 per cm-3 km/s
EV = 1e-15 / E_CHARGE  # eV per nPa/cm-3
MAGNETIC = 1e-9 / (2 * MU0)  # nPa per nT^2
Array = np.ndarray


@dataclass(frozen=True)
class Ions:
    """Ion moments after the background was taken out.

    Attributes:
        density: cm-3.
        velocity: km/s.
        pressure: nPa.
        unknown: (time,) True where the background is not known; None from
            ``without_background``, which is given one.
        removed: False where none was given and the moments are as measured.
    """

    density: Array
    velocity: Array
    pressure: Array
    unknown: Array | None = None
    removed: bool = True

    @property
    def said(self) -> str:
        """What was done about the background, for the long names."""
        return "background removed" if self.removed else "background not given and not removed"


def without_background(
    density: Array, velocity: Array, pressure: Array, background: Array, background_pressure: Array
) -> Ions:
    """Take penetrating radiation out of DIS moments (MMS CMAD 4.5.7.5).

    n' = n - n_bg; v' = v n / n'; P' = P + m_p n v v - P_bg I - m_p n' v' v'.

    Args:
        density: n, cm-3.
        velocity: v, km/s, (time, 3).
        pressure: P, nPa, (time, 3, 3).
        background: n_bg, cm-3.
        background_pressure: P_bg, nPa, a scalar times the unit tensor.

    Returns:
        Corrected density, velocity and pressure; NaN where the background takes all of the density.
    """
    n = np.asarray(density, float)
    left = n - background
    left = np.where(left > 0, left, np.nan)
    v = np.asarray(velocity, float)
    corrected = v * (n / left)[:, None]
    before = DYNAMIC * n[:, None, None] * _outer(v)
    after = DYNAMIC * left[:, None, None] * _outer(corrected)
    removed = np.asarray(background_pressure, float)[:, None, None] * np.eye(3)
    return Ions(left, corrected, np.asarray(pressure, float) + before - removed - after)


def ions(
    who: str, density: Array, velocity: Array, pressure: Array, background: Array | None,
    background_pressure: Array | None,
) -> Ions:  # fmt: skip
    """Ion moments without their background, as far as it is known; nothing is filled in.

    Args:
        who: the spacecraft, for the warning.
        density, velocity, pressure: as for ``without_background``.
        background, background_pressure: None where there is no such variable.

    Returns:
        Moments that are NaN where either background is a fill value. Where one of the two is absent
        or fill throughout, a warning and the moments as measured; ``unknown`` is True there.
    """
    known = np.zeros(len(density), bool)
    if background is not None and background_pressure is not None:
        known = np.isfinite(background) & np.isfinite(background_pressure)
        if known.any():
            bg, bg_pressure = (
                np.where(known, v, np.nan) for v in (background, background_pressure)
            )
            made = without_background(density, velocity, pressure, bg, bg_pressure)
            return Ions(made.density, made.velocity, made.pressure, ~known)
    warnings.warn(
        f"{who} DIS: the ion background (density and pressure) is absent or fill throughout; "
        "ion moments are left as measured",
        UserWarning,
        stacklevel=3,
    )
    n, v, p = (np.asarray(a, float) for a in (density, velocity, pressure))
    return Ions(n, v, p, ~known, removed=False)


def temperatures(pressure: Array, density: Array, field: Array) -> tuple[Array, Array]:
    """Temperature along and across the magnetic field.

    Args:
        pressure: P, nPa, (time, 3, 3).
        density: the density that belongs to P (corrected if P is), cm-3.
        field: B, any unit, (time, 3), in the tensor's frame.

    Returns:
        T parallel and T perpendicular, eV.
    """
    b = unit(field)
    along = np.einsum("ti,tij,tj->t", b, pressure, b)
    across = (np.trace(pressure, axis1=1, axis2=2) - along) / 2
    per = EV / np.where(density > 0, density, np.nan)
    return along * per, across * per


def current(density: Array, ion_velocity: Array, electron_velocity: Array) -> tuple[Array, Array]:
    """Current density from the plasma moments, J = e n_e (v_i - v_e).

    Args:
        density: n_e, cm-3.
        ion_velocity, electron_velocity: km/s, (time, 3), on the clock of n_e.

    Returns:
        The ions' part e n_e v_i and the electrons' part -e n_e v_e, uA/m2, (time, 3); J is their
        sum.
    """
    scale = (CURRENT * np.asarray(density, float))[:, None]
    return scale * ion_velocity, -scale * electron_velocity


def electron_frame_field(electric: Array, electron_velocity: Array, magnetic: Array) -> Array:
    """E' = E + v_e x B, mV/m (1e-3 mV/m per km/s nT)."""
    return np.asarray(electric, float) + 1e-3 * np.cross(electron_velocity, magnetic)


def work(current_density: Array, electric: Array, magnetic: Array) -> tuple[Array, Array, Array]:
    """J.E and its parts along and across B.

    Args:
        current_density: uA/m2, (time, 3).
        electric: mV/m, (time, 3).
        magnetic: B, any unit, (time, 3).

    Returns:
        total, parallel, perpendicular; nW/m3.
    """
    b = unit(magnetic)
    total: Array = np.einsum("ti,ti->t", current_density, electric)
    along = np.einsum("ti,ti->t", current_density, b) * np.einsum("ti,ti->t", electric, b)
    return total, along, total - along


def unit(vector: Array) -> Array:
    """Unit vectors; NaN where the length is zero."""
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    units: Array = np.asarray(vector, float) / np.where(length > 0, length, np.nan)
    return units


def alfven_speed(b0: float | Array, n0: float | Array) -> float | Array:
    """V = B0 / sqrt(n0 m_p mu0), km/s, from nT and cm-3."""
    return np.asarray(b0) * 1e-9 / np.sqrt(np.asarray(n0) * 1e6 * M_PROTON * MU0) / 1e3


def total_pressure(field: Array, ion: Array, electron: Array) -> Array:
    """B^2/2mu0 + tr(Pi)/3 + tr(Pe)/3, nPa; from nT and two nPa tensors."""
    thermal = (np.trace(ion, axis1=1, axis2=2) + np.trace(electron, axis1=1, axis2=2)) / 3
    pressure: Array = MAGNETIC * np.einsum("ti,ti->t", field, field) + thermal
    return pressure


def _outer(v: Array) -> Array:
    product: Array = np.einsum("ti,tj->tij", v, v)
    return product
