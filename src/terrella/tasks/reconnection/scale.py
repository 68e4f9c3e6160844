"""B0 and n0: given, from the event table, or estimated from the data with an uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from terrella.tasks.reconnection import physics
from terrella.tasks.reconnection.events import chosen
from terrella.types import NoData, Refused

BLOCK = 5.0  # s: the lobe field is judged by medians of this length
SHEET = 0.35  # |B| / B0 below which a sample counts as current sheet
QUANTILE = 0.85  # of density inside the sheet
FEW = 60  # samples in the sheet below which its density is hardly known
# Relative errors that no estimate goes below: pressure balance counts By and the lobe's plasma too.
FLOOR_B, FLOOR_N = 0.06, 0.10
SUSPECT = 3.0  # standard errors by which a given B0 may differ before it is flagged


@dataclass(frozen=True)
class Scale:
    """What the data are normalised by.

    Attributes:
        b0: lobe magnetic field, nT.
        n0: current-sheet density, cm-3.
        b0_error, n0_error: relative standard errors; 0 for a value taken as exact.
        origin: ``given``, ``event A`` or ``estimated``.
        b0_seen, n0_seen: the estimates from the data beside a given value.
        suspect: True where the data contradict a given B0.
    """

    b0: float
    n0: float
    b0_error: float = 0.0
    n0_error: float = 0.0
    origin: str = "given"
    b0_seen: float = float("nan")
    n0_seen: float = float("nan")
    suspect: bool = False

    @property
    def speed(self) -> float:
        """Alfven speed of B0 and n0, km/s."""
        return float(physics.alfven_speed(self.b0, self.n0))


def lobe_field(magnetic: np.ndarray, ion: np.ndarray, electron: np.ndarray) -> np.ndarray:
    """Lobe field by total-pressure balance, B_lobe^2/2mu0 = B^2/2mu0 + n k (Ti + Te).

    Args:
        magnetic: B, nT, (samples, 3).
        ion, electron: pressure tensors, nPa, (samples, 3, 3), background removed.

    Returns:
        (samples,) nT.
    """
    pressure = physics.total_pressure(magnetic, ion, electron)
    return np.asarray(np.sqrt(np.maximum(pressure, 0) / physics.MAGNETIC))


def estimate(
    time: np.ndarray, magnetic: np.ndarray, density: np.ndarray, lobe: np.ndarray
) -> Scale:
    """B0 and n0 from an interval that crosses the sheet.

    B0 is the median of the lobe field over blocks of five seconds and its error their robust
    spread: the lobe field truly changes as flux is loaded and removed. n0 is an upper quantile of
    the density where |B| is well below B0; its error is the distance between quantiles around it,
    and grows to a half where the sheet was hardly met.

    Args:
        time: (samples,) datetime64[ns].
        magnetic: (samples, 3) nT.
        density: (samples,) cm-3.
        lobe: (samples,) nT from ``lobe_field``.

    Raises:
        NoData: no sample has both field and pressure.
    """
    good = np.isfinite(lobe) & np.isfinite(density) & (lobe > 0) & (density > 0)
    if not good.any():
        raise NoData("B0 and n0 cannot be estimated: no sample has field, density and pressure")
    seconds = (time - time[0]).astype("timedelta64[ns]").astype(np.int64) / 1e9
    block = (seconds // BLOCK).astype(int)
    medians = np.array([np.median(lobe[good & (block == k)]) for k in np.unique(block[good])])
    b0 = float(np.median(medians))
    spread = 1.4826 * float(np.median(np.abs(np.log(medians / b0))))
    sheet = density[good & (np.linalg.norm(magnetic, axis=1) < SHEET * b0)]
    if len(sheet) < FEW:
        n0, error = float(np.quantile(density[good], 0.98)), 0.5
    else:
        low, n0, high = (float(q) for q in np.quantile(sheet, [0.6, QUANTILE, 0.98]))
        error = float(np.log(high / low)) / 2
    return Scale(b0, n0, max(spread, FLOOR_B), min(max(error, FLOOR_N), 0.7), "estimated", b0, n0)


def settle(options: Any, span: tuple[np.datetime64, np.datetime64], seen: Scale | None) -> Scale:
    """The scale of one interval: what was given, else its event's, else what was seen.

    Args:
        options: with ``b0``, ``n0``, ``b0_error``, ``n0_error`` and ``event``.
        span: first and last instant of the data.
        seen: from ``estimate``, None where the data do not allow one.

    Raises:
        Refused: a value that is not positive, or an event at another time.
    """
    check(options)
    b0, n0, origin = options.b0, options.n0, "given"
    if options.event and (b0 is None or n0 is None):
        letter = _overlapping(options.event, span)
        event = chosen(letter)[letter]
        b0, n0 = b0 or event.b0, n0 or event.n0
        origin = f"event {letter}"
    b0_error, n0_error = options.b0_error, options.n0_error
    if b0 is None or n0 is None:
        if seen is None:
            raise NoData("B0 and n0 cannot be estimated from these data: give --b0 and --n0")
        origin = "estimated" if b0 is None and n0 is None else "given and estimated"
        b0, b0_error = (seen.b0, seen.b0_error) if b0 is None else (b0, b0_error)
        n0, n0_error = (seen.n0, seen.n0_error) if n0 is None else (n0, n0_error)
    b_seen, n_seen = (seen.b0, seen.n0) if seen else (float("nan"), float("nan"))
    suspect = seen is not None and abs(np.log(b0 / b_seen)) > SUSPECT * max(seen.b0_error, 0.03)
    return Scale(b0, n0, b0_error, n0_error, origin, b_seen, n_seen, bool(suspect))


def check(options: Any) -> None:
    """Refuse a B0, an n0, an error or a number of draws that cannot be.

    Raises:
        Refused: says which.
    """
    if options.draws < 1:
        raise Refused(f"--draws {options.draws}: must be 1 or more; 1 is B0 and n0 as they stand")
    for name, units in (("b0", "nT"), ("n0", "cm-3")):
        value = getattr(options, name)
        if value is not None and not (np.isfinite(value) and value > 0):
            raise Refused(
                f"--{name} {value:g}: must be a positive number of {units}; "
                f"leave it out to estimate it from the data"
            )
    for name in ("b0_error", "n0_error"):
        value = getattr(options, name)
        if not 0 <= value < 1:
            flag = name.replace("_", "-")
            raise Refused(f"--{flag} {value:g}: is a share, from 0 to less than 1")


def factors(scale: Scale, draws: int, seed: int = 0) -> np.ndarray:
    """Factors that turn features normalised by (b0, n0) into those of drawn (B0, n0).

    Both are drawn log-normal, on a scrambled Sobol sequence so that a few draws cover the spread.

    Args:
        scale: with its relative errors.
        draws: how many; one row of ones if the errors are zero.
        seed: of the sequence.

    Returns:
        (draws, 14) float32 in the features' order.
    """
    if draws < 2 or (scale.b0_error == 0 and scale.n0_error == 0):
        return np.ones((1, 14), np.float32)
    import torch  # its Sobol sequence: importing scipy's statistics takes longer than the network

    sequence: Any = torch.quasirandom.SobolEngine
    unit = sequence(2, scramble=True, seed=seed).draw(draws)
    z = torch.special.ndtri(unit.double().clamp(1e-3, 1 - 1e-3)).numpy()
    fb, fn = np.exp(z[:, 0] * scale.b0_error), np.exp(z[:, 1] * scale.n0_error)
    per_b, per_n, per_v = 1 / fb, 1 / fn, np.sqrt(fn) / fb
    per_e = per_v * per_b
    columns = [per_b] * 3 + [per_e] * 3 + [per_n] * 2 + [per_v] * 6
    return np.stack(columns, axis=1).astype(np.float32)


def _overlapping(letters: str, span: tuple[np.datetime64, np.datetime64]) -> str:
    events = chosen(letters)
    zero = np.timedelta64(0, "ns")
    shared = {k: min(e.span[1], span[1]) - max(e.span[0], span[0]) for k, e in events.items()}
    best = max(shared, key=lambda k: shared[k])
    if shared[best] <= zero:
        when = f"{span[0].astype('datetime64[s]')} to {span[1].astype('datetime64[s]')}"
        raise NoData(
            f"--event {letters}: no overlap in time; event {best} is {events[best].start} to "
            f"{events[best].stop}, the data are {when}"
        )
    return best
