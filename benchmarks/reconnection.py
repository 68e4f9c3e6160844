"""What a burst interval costs, in ratios that hold on any machine.

Run `python benchmarks/reconnection.py`. A simulated 3-minute interval of four probes (DES 30 ms,
burst E at 8192 samples a second) is written as L2 CDF files; then, all in one run:

- the whole command `terrella run reconnection ... --no-plot`, files to product, in CPU time, beside
  `python -c 'import torch, xarray, cdflib'`, and its peak memory (goal: 5 times, 1.5 GB);
- averaging burst E onto the electron clock, beside a plain loop that masks the whole array for
  every bin (goal: 100 times faster);
- both networks on 24,000 samples with a context of its own for each, input projections shared,
  beside the same windows copied, and their share of the machine's matrix-multiply rate.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from terrella import measure

REPEATS = 5
PROBES = "1,2,3,4"


def best(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Least CPU time of several runs, seconds."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def whole_runs(scene: Path, out: Path) -> None:
    imports = measure.python("import torch, xarray, cdflib", REPEATS).cpu
    print(f"import torch, xarray, cdflib             {imports:6.2f} s CPU")
    base = [sys.executable, "-m", "terrella", "run", "reconnection", str(scene), "--no-plot"]
    base += ["--out", str(out)]
    for name, words in (
        ("B0, n0 given", ["--b0", "17", "--n0", "0.25"]),
        ("B0, n0 estimated, 8 draws", []),
        ("B0, n0 given, legacy CSV", ["--b0", "17", "--n0", "0.25", "--legacy-csv"]),
    ):
        cost = measure.command([*base, *words], 3)
        print(
            f"run, {name:32s}    {cost.cpu:6.2f} s CPU = {cost.cpu / imports:4.2f} x imports, "
            f"{cost.peak / 1024:4.2f} GB peak"
        )


def bins() -> None:
    from terrella.tasks.reconnection.clocks import bin_mean

    start = np.datetime64("2017-07-11T22:33:00", "ns")
    samples = start + (np.arange(180 * 8192) * (1e9 / 8192)).astype("m8[ns]")
    clock = start + np.arange(6000) * np.timedelta64(30, "ms")
    field = np.random.default_rng(0).normal(size=(len(samples), 3)).astype(np.float32)
    ours = best(lambda: bin_mean(samples, field, clock))
    ticks, at = clock.astype(np.int64), samples.astype(np.int64)
    edges = np.concatenate([[ticks[0] - 15_000_000], (ticks[1:] + ticks[:-1]) // 2,
                            [ticks[-1] + 15_000_000]])  # fmt: skip
    looped = np.full((len(clock), 3), np.nan)
    begin = time.process_time()
    for k in range(len(clock)):
        inside = (at >= edges[k]) & (at < edges[k + 1])
        if inside.any():
            looped[k] = field[inside].mean(axis=0)
    loop = time.process_time() - begin
    np.testing.assert_allclose(bin_mean(samples, field, clock), looped, atol=1e-5)
    print(f"bin means, 1.47 M x 3 onto 6000          {ours:6.3f} s; plain loop {loop:6.1f} s: "
          f"{loop / ours:.0f} times faster")  # fmt: skip


def each(parts: range, work: Callable[[int, int], Any]) -> None:
    for lo in parts:
        work(lo, lo + parts.step)


def slide(net: Any, series: Any, window: int, lo: int, hi: int) -> Any:
    return net.sliding(series[lo : hi + window - 1], window)


def copied(net: Any, view: Any, lo: int, hi: int) -> Any:
    return net(view[lo:hi])


def network() -> None:
    import torch

    from terrella.tasks.reconnection.network import ROWS, Context, Published

    rows = 24_000
    x = torch.randn(2048, 2048)
    rate = 2 * 2048**3 / best(lambda: x @ x)
    for net, window, work in (
        (Published(), 32, 32 * (42 * 42 * 5) + 14 * 42),
        (Context(), 63, 252 * 192 + 192 * 192 + 192 * 64 + 64 * 6),
    ):
        series = torch.randn(rows + window - 1, 14)
        view = series.unfold(0, window, 1).transpose(1, 2)
        parts = range(0, rows, ROWS)
        with torch.inference_mode():
            ours = best(partial(each, parts, partial(slide, net, series, window)))
            plain = best(partial(each, parts, partial(copied, net, view)))
        share = 2 * rows * work / ours / rate
        print(
            f"{type(net).__name__:14s} {rows} rows x {window}     {ours:6.2f} s; on copied windows "
            f"{plain:5.2f} s; {100 * share:.0f} % of the matrix rate ({rate / 1e9:.0f} GFLOP/s)"
        )


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from terrella.tasks.reconnection.simulate import export, simulate

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene"
        export(simulate(seed=1, hours=0.05, probes=PROBES), scene)
        for truth in scene.glob("*.nc"):
            truth.unlink()
        size = sum(p.stat().st_size for p in scene.iterdir()) / 1e6
        print(f"simulated, 3 minutes, probes {PROBES}, {size:.0f} MB of CDF")
        whole_runs(scene, Path(folder) / "out")
    bins()
    network()


if __name__ == "__main__":
    main()
