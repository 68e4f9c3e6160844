"""Calibration of one satellite to another over their overlap, on log10 flux.

Wei et al. 2018, doi:10.1029/2018SW001829: a straight line, or for GOES-13 a piecewise straight one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from terrella.types import Refused

ENOUGH = 60  # days that two satellites must share
SOFT = 0.1  # dex beyond which a day counts as an outlier and pulls linearly
MEMORY = 365.25  # days; satellites drift, so the latest days count most
BLOCK = 27  # days of a bootstrap block: neighbouring days are alike


@dataclass(frozen=True)
class Calibration:
    """log10 reference = offset + slope x + bend max(x - knot, 0), x = log10 of the satellite.

    Attributes:
        satellite, reference: their names.
        offset, slope, bend, knot: of the line; bend is 0 for a straight one.
        lo, hi: 95 % interval of the correction (dex) at the median flux, by block bootstrap.
        residual: robust standard deviation of a day's residual, dex.
        days: shared days used.
        first, last: of those days.
    """

    satellite: str
    reference: str
    offset: float
    slope: float
    bend: float
    knot: float
    lo: float
    hi: float
    residual: float
    days: int
    first: str
    last: str

    def apply(self, flux: np.ndarray) -> np.ndarray:
        """The satellite's flux on the reference's scale; NaN where it is not positive."""
        x = np.log10(np.where(flux > 0, flux, np.nan))
        scaled: np.ndarray = 10.0 ** line(
            np.array([self.offset, self.slope, self.bend]), x, self.knot
        )
        return scaled

    def describe(self) -> dict[str, Any]:
        """As plain values, for the provenance."""
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(self).items()}


def drift(rest: np.ndarray, day: np.ndarray) -> float:
    """Change of what a calibration leaves, dex a year: Theil-Sen slope of 27-day medians.

    Args:
        rest: (days,) log10 of the calibrated flux over the reference's, NaN where missing.
        day: (days,) datetime64.

    Returns:
        NaN for fewer than three spells.
    """
    known = np.isfinite(rest)
    block = day.astype("datetime64[D]").astype(int)[known] // BLOCK
    labels = np.unique(block)
    if len(labels) < 3:
        return float("nan")
    middle = np.array([np.median(rest[known][block == b]) for b in labels])
    i, j = np.triu_indices(len(labels), 1)
    return float(np.median((middle[j] - middle[i]) / (labels[j] - labels[i]))) * 365.25 / BLOCK


def line(p: np.ndarray, x: np.ndarray, knot: float) -> np.ndarray:
    """A straight line with an optional bend at ``knot``."""
    y: np.ndarray = p[0] + p[1] * x
    return y if len(p) < 3 or not p[2] else y + p[2] * np.maximum(x - knot, 0.0)


def fit(
    x: np.ndarray, y: np.ndarray, day: np.ndarray, satellite: str, reference: str,
    *, kind: str = "best", draws: int = 200, seed: int = 0, flag: str = "--calibrate",
) -> Calibration:  # fmt: skip
    """Fit one satellite's daily log10 flux to the reference's, robust to outliers.

    Days count by exp(-age / one year), age back from the last: satellites drift apart.

    Args:
        x, y: (days,) log10 daily flux of the satellite and of the reference, NaN where missing.
        day: (days,) datetime64[D].
        satellite, reference: their names.
        kind: ``straight``, ``piecewise``, or ``best``: the bend is kept only if it pays for itself
            (BIC).
        draws, seed: of the bootstrap.
        flag: the option that asked for it, for messages.

    Raises:
        Refused: too few shared days.
    """
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < ENOUGH:
        raise Refused(
            f"{flag} {satellite}:{reference}: they share {int(both.sum())} days; at least "
            f"{ENOUGH} are needed, give files in which both measure"
        )
    x, y, day = x[both], y[both], day[both]
    number = day.astype("datetime64[D]").astype(int)
    recent = np.exp((number - number.max()) / MEMORY)
    knots = [float(k) for k in np.quantile(x, [0.2, 0.35, 0.5, 0.65, 0.8])]
    straight = (_solve(x, y, None, recent), 0.0)
    bent = min(
        ((_solve(x, y, k, recent), k) for k in knots), key=lambda f: _cost(f[0], x, y, f[1], recent)
    )
    # Days come in spells, so the sample counts as one observation a spell of three.
    n = float(recent.sum() ** 2 / (recent**2).sum()) / 3
    gain = n * np.log(_cost(straight[0], x, y, 0.0, recent) / _cost(bent[0], x, y, bent[1], recent))
    chosen = {"straight": straight, "piecewise": bent}.get(
        kind, bent if gain > 2 * np.log(n) else straight
    )
    p, knot = np.pad(chosen[0], (0, 3 - len(chosen[0]))), chosen[1]
    middle = np.array([np.median(x)])
    rng = np.random.default_rng(seed)
    block = number // BLOCK
    labels, index = np.unique(block, return_inverse=True)
    drawn = []
    for _ in range(draws):
        weight = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)))[index]
        again = _solve(x, y, knot if len(chosen[0]) == 3 else None, weight * recent)
        drawn.append(float((line(again, middle, knot) - middle)[0]))
    lo, hi = np.quantile(drawn, [0.025, 0.975])
    rest = y - line(p, x, knot)
    return Calibration(
        satellite, reference, float(p[0]), float(p[1]), float(p[2]), knot, float(lo), float(hi),
        float(1.4826 * np.median(np.abs(rest - np.median(rest)))), len(x),
        str(day.min().astype("datetime64[D]")), str(day.max().astype("datetime64[D]")),
    )  # fmt: skip


def _solve(
    x: np.ndarray, y: np.ndarray, knot: float | None, weight: np.ndarray | None = None
) -> np.ndarray:
    """Iteratively reweighted least squares with Huber's weights."""
    columns = [np.ones_like(x), x] + ([] if knot is None else [np.maximum(x - knot, 0.0)])
    A = np.stack(columns, 1)
    given = np.ones_like(x) if weight is None else weight.astype(float)
    w, p = given, np.zeros(A.shape[1])
    for _ in range(20):
        root = np.sqrt(w)[:, None]
        new = np.linalg.lstsq(A * root, y * root[:, 0], rcond=None)[0]
        if np.allclose(new, p, atol=1e-6):
            break
        p = new
        far = np.abs(y - A @ p)
        w = given * np.where(far > SOFT, SOFT / np.maximum(far, SOFT), 1.0)
    return p


def _cost(p: np.ndarray, x: np.ndarray, y: np.ndarray, knot: float, weight: np.ndarray) -> float:
    far = np.abs(y - line(p, x, knot))
    each = np.where(far <= SOFT, far**2 / 2, SOFT * (far - SOFT / 2))
    return float(np.average(each, weights=weight))


def pairs(text: str, flag: str = "--calibrate") -> list[tuple[str, str]]:
    """Read ``goes13:goes15,goes14:goes15``.

    Raises:
        Refused: it is not of that form, or has two references.
    """
    found = []
    for part in filter(None, text.split(",")):
        satellite, colon, reference = (s.strip().lower() for s in part.partition(":"))
        if not colon or not satellite or not reference or satellite == reference:
            raise Refused(f"{flag} {text!r}: write it as goes13:goes15[,goes14:goes15]")
        found.append((satellite, reference))
    if len({r for _, r in found}) > 1:
        raise Refused(f"{flag} {text!r}: all satellites must be put on one reference's scale")
    return found
