"""Do the intervals hold what they say? `python benchmarks/intervals.py`.

Simulates tables of a judge whose true score is known, takes the house's 90 % interval of each, and
counts how often it contains the truth. It should be between 85 and 95 % of the time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd

from terrella.learn.metrics import Draws, Score, f1, ratio

LEVEL = 0.9
BLOCKS = (12, 24, 48)
Made = tuple[list[pd.DataFrame], Callable[[list[np.ndarray]], np.ndarray], float]


def rate(rng: np.random.Generator, blocks: int) -> Made:
    """Accuracy where rows of a block share a difficulty: truth 0.7."""
    rows = rng.integers(5, 40, blocks)
    block = np.repeat(np.arange(blocks), rows)
    right = rng.random(len(block)) < rng.beta(7, 3, blocks)[block]
    table = pd.DataFrame({"block": block, "right": right * 1.0, "rows": 1.0})
    return [table], lambda v: v[0], 0.7


def gain(rng: np.random.Generator, blocks: int) -> Made:
    """Difference of two models' accuracy on the same rows: truth 0.05."""
    block = np.repeat(np.arange(blocks), 30)
    easy = rng.beta(6, 4, blocks)[block]
    draw = rng.random(len(block))
    tables = [
        pd.DataFrame({"block": block, "right": (draw < easy + more) * 1.0, "rows": 1.0})
        for more in (0.0, 0.05)
    ]
    # A chance above 1 cannot be had: the true difference is what is left of 0.05.
    grid = np.random.default_rng(0).beta(6, 4, 400_000)
    truth = float((np.minimum(grid + 0.05, 1) - grid).mean())
    return tables, lambda v: v[1] - v[0], truth


def events(rng: np.random.Generator, blocks: int) -> Made:
    """F1 of events, a few an orbit: truth 2 * 0.9 / (2 * 0.9 + 0.3 + 0.2)."""
    mean = rng.gamma(4, 0.25, blocks)  # some orbits hold more of everything
    counts = {k: rng.poisson(r * mean) * 1.0 for k, r in (("tp", 0.9), ("fp", 0.3), ("fn", 0.2))}
    table = pd.DataFrame({"block": np.arange(blocks), **counts})
    return [table], lambda v: v[0], 1.8 / 2.3


def efficiency(rng: np.random.Generator, blocks: int) -> Made:
    """Prediction efficiency of a slow series (27-day blocks, memory of 3 days): truth 0.7."""
    days = blocks * 27
    signal, noise = (_slow(rng, days) for _ in range(2))
    forecast = np.sqrt(0.7) * signal
    table = pd.DataFrame({
        "block": np.arange(days) // 27, "truth": forecast + np.sqrt(0.3) * noise,
        "forecast": forecast,
    })  # fmt: skip
    return [table], lambda v: v[0], 0.7


def _slow(rng: np.random.Generator, days: int) -> np.ndarray:
    keep = np.exp(-1 / 3)
    kick = rng.normal(0, np.sqrt(1 - keep**2), days)
    made = np.empty(days)
    made[0] = rng.normal()
    for k in range(1, days):
        made[k] = keep * made[k - 1] + kick[k]
    return made


def _pe(table: pd.DataFrame, weight: np.ndarray) -> float:
    m, p = table["truth"].to_numpy(), table["forecast"].to_numpy()
    around = m - (weight @ m) / weight.sum()
    return 1 - float(weight @ (m - p) ** 2) / float(weight @ around**2)


KINDS: dict[str, tuple[Callable[[np.random.Generator, int], Made], Score]] = {
    "rate": (rate, ratio("right", "rows")),
    "gain": (gain, ratio("right", "rows")),
    "events": (events, f1("tp", "fp", "fn")),
    "efficiency": (efficiency, _pe),
}


def coverage(kind: str, blocks: int, trials: int, seed: int = 0, draws: int = 300) -> float:
    """Share of trials whose interval contains the known score."""
    make, metric = KINDS[kind]
    inside = 0
    for trial in range(trials):
        tables, combine, truth = make(np.random.default_rng((seed, trial, blocks)), blocks)
        drawn = Draws.of(tables[0]["block"].to_numpy(), draws, trial)
        _, lo, hi = drawn.interval(combine([drawn.values(metric, t) for t in tables]), LEVEL)
        inside += lo <= truth <= hi
    return inside / trials


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--trials", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    print(f"share of {given.trials} simulated tables whose 90 % interval holds the true score")
    print(f"{'':12}" + "".join(f"{b:>4} blocks" for b in BLOCKS))
    for kind in KINDS:
        shares = [coverage(kind, b, given.trials, given.seed) for b in BLOCKS]
        print(f"{kind:12}" + "".join(f"{100 * s:9.1f} %" for s in shares), flush=True)


if __name__ == "__main__":
    main()
