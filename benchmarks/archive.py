"""Many files on many workers: `python benchmarks/archive.py [DAYS]`.

Goals: two workers at least 1.5 times the speed of one on two idle cores, with the same bytes; the
memory of a worker the same within 15 % for 10 days and for all; and what 20 years of 8 satellites
take at that rate.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from terrella.measure import command
from terrella.sources.poes import inspect, write
from terrella.tasks.precipitation.simulate import simulate

ARCHIVE = 8 * 7305  # satellite-days of 20 years


def simulated(folder: Path, days: int) -> list[Path]:
    """Days of one flight, as the archive cuts them."""
    folder.mkdir()
    record = simulate(seed=5, hours=24.0 * days)
    number = (record["L"]["time"].to_numpy() - np.datetime64("2013-01-01")) // np.timedelta64(
        1, "D"
    )
    paths = []
    for k in range(days):
        day = str(np.datetime64("2013-01-01") + k).replace("-", "")
        part = {n: v.isel(time=number == k) for n, v in record.items()}
        paths.append(write(part, folder / f"poes_n18_{day}_proc.nc"))
    return paths


def fill(paths: list[Path], store: Path, workers: int) -> tuple[float, float, dict[str, float]]:
    """Wall and CPU seconds of the whole command, and what its report says."""
    shutil.rmtree(store, ignore_errors=True)
    before, began = os.times(), time.perf_counter()
    command([sys.executable, "-m", "terrella", "run", "precipitation", *map(str, paths), "--out",
             str(store), "--workers", str(workers)], runs=1)  # fmt: skip
    wall, after = time.perf_counter() - began, os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return wall, cpu, json.loads(next((store / "runs").iterdir()).read_text())


def same(one: Path, two: Path) -> bool:
    """Whether two stores hold the same bytes."""
    names = [
        p.relative_to(one)
        for p in one.rglob("*")
        if p.is_file() and p.relative_to(one).parts[0] in ("events", "series", "units")
    ]
    return bool(names) and not any(filecmp.cmpfiles(one, two, names, shallow=False)[1:])


def main(days: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = simulated(folder / "days", days)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; {days} days")
        began = time.perf_counter()
        for path in paths:
            inspect(path)
        look = (time.perf_counter() - began) / days
        best = {}
        for workers in (1, 2):
            made = [fill(paths, folder / f"s{workers}", workers) for _ in range(3)]
            best[workers] = min(made, key=lambda m: m[0])
            wall, _, report = best[workers]
            cpu = min(m[2]["work_cpu_s"] for m in made) / days
            print(
                f"{workers} workers: {wall:.1f} s, {days / wall:.2f} days a second, "
                f"{cpu:.2f} s CPU a day, {max(report['peak'].values()) / 2**20:.0f} MiB a worker"
            )
        print(f"speed of 2 workers: {best[1][0] / best[2][0]:.2f} times that of 1 (goal 1.5)")
        print(f"same bytes: {same(folder / 's1', folder / 's2')}")
        few = fill(paths[:10], folder / "few", 2)[2]
        peaks = [max(r["peak"].values()) / 2**20 for r in (few, best[2][2])]
        print(f"10 days: {peaks[0]:.0f} MiB; {days} days: {peaks[1]:.0f} MiB a worker (goal +15 %)")
        size = sum(p.stat().st_size for p in (folder / "s2").rglob("*.nc")) / days
        work = min(best[k][2]["work_cpu_s"] for k in (1, 2)) / days
        print(
            f"20 years x 8 satellites: {ARCHIVE} days x {work:.2f} s = {ARCHIVE * work / 3600:.1f} "
            f"core hours; looking into the files {ARCHIVE * look / 60:.0f} min; series "
            f"{ARCHIVE * size / 1e9:.0f} GB"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
