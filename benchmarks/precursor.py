"""Speed of the precursor spectrograms, as ratios measured in one run.

    python benchmarks/precursor.py [--days 365]

1. CPU time of a station-year at 1 Hz (31.5 million samples x 3), as a multiple of the CPU time of
   ``python -c 'import torch, xarray, scipy.signal'`` beside it. Goal: at most 12.
2. Peak memory after 30 days and after all: it must not grow with the record.
3. CPU time a window beside drawing it with matplotlib as the original does (three figures to PNG).
   Goal: at least 100 times faster.
4. Greatest difference to scipy's spectrogram, dB, where power is above -120 dB of the peak. Goal:
   below 1e-3.
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import time

import numpy as np
from scipy import signal

from terrella.tasks.precursor.prepare import to_bytes
from terrella.tasks.precursor.spectrogram import Chain, batches, power

DAY = 86_400


def days(count: int, seed: int = 0):
    """Simulated days one after the other: red noise on a main field, made a day at a time."""
    random = np.random.default_rng(seed)
    level = np.array([[38_000.0], [120.0], [-25_000.0]])
    for _ in range(count):
        yield level + np.cumsum(random.normal(0, 0.05, (3, DAY)), 1)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def import_time() -> float:
    """Least CPU seconds of the imports that any run pays for, of five."""
    found = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = "import torch, xarray, scipy.signal"
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def year(count: int) -> tuple[float, int, float, float]:
    """CPU seconds (without making the data), windows, peak MB after 30 days and at the end."""
    cpu, windows, early = 0.0, 0, 0.0
    block: list[np.ndarray] = []
    for number, day in enumerate(days(count), 1):
        block.append(day)
        if len(block) == 30 or number == count:
            field = np.concatenate(block, 1)
            start = time.process_time()
            for batch in batches(field, np.zeros(field.shape[1], np.uint8), Chain(), size=8):
                windows += len(to_bytes(batch.image))
            cpu += time.process_time() - start
            block = []
            early = early or peak()
    return cpu, windows, early, peak()


def drawn(field: np.ndarray) -> float:
    """Least CPU seconds to draw one 6-h window with matplotlib, of three.

    As the original does: each component filtered, its spectrogram drawn in a figure of its own and
    saved as PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sos = signal.butter(4, 0.001, "highpass", fs=1.0, output="sos")
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        for row in field:
            clean = signal.sosfiltfilt(sos, row)
            f, t, density = signal.spectrogram(clean, 1.0, "hann", 256, 128)
            figure = Figure(figsize=(10, 6))
            FigureCanvasAgg(figure)
            axis = figure.subplots()
            axis.pcolormesh(t, f, 10 * np.log10(density + 1e-12), shading="gouraud", cmap="jet")
            figure.savefig(io.BytesIO(), format="png")
        best = min(best, time.process_time() - start)
    return best


def difference() -> float:
    """Greatest difference to scipy in dB."""
    data = next(days(1))[:, :21_600] - 38_000
    _, _, expected = signal.spectrogram(
        data, 1.0, "hann", 256, 128, detrend="constant", scaling="density"
    )
    told = expected > expected.max() * 1e-12
    found = power(data, Chain())
    return float(np.abs(10 * np.log10(found[told] / expected[told])).max())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--days", type=int, default=365)
    count = parser.parse_args().days
    base = import_time()
    cpu, windows, early, late = year(count)
    field = np.concatenate(list(days(10)), 1)
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        n = sum(
            len(b.image)
            for b in batches(field, np.zeros(field.shape[1], np.uint8), Chain(), size=8)
        )
        best = min(best, (time.process_time() - start) / n)
    slow = drawn(next(days(1))[:, :21_600])
    scaled = cpu * 365 / count
    print(f"imports                      {base:8.2f} s CPU")
    print(
        f"station-year, {windows} windows  {scaled:8.2f} s CPU = "
        f"{scaled / base:.1f} x imports (goal 12)"
    )
    print(
        f"peak memory                  {early:8.0f} MB after 30 days, {late:.0f} MB after {count}"
    )
    print(f"a window                     {1e3 * best:8.2f} ms; drawn {1e3 * slow:.0f} ms = "
          f"{slow / best:.0f} x (goal 100)")  # fmt: skip
    print(f"difference to scipy          {difference():8.1e} dB (goal 1e-3)")


if __name__ == "__main__":
    main()
