"""What benchmarks share: processes measured from outside, and the machine's own matrix rate."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Best of several runs of a command.

    Attributes:
        cpu: user + system seconds of the run that took least.
        wall: seconds of the run that took least.
        peak: MiB, the largest of all runs.
    """

    cpu: float
    wall: float
    peak: float


def command(arguments: Sequence[str], runs: int = 5) -> Cost:
    """Run a command and account for it as the operating system does."""
    cpu, wall, peak = [], [], []
    for _ in range(runs):
        began = time.perf_counter()
        child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert child.stderr is not None
        said = child.stderr.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{' '.join(arguments)}\n{said.decode()}")
        cpu.append(used.ru_utime + used.ru_stime)
        wall.append(time.perf_counter() - began)
        peak.append(used.ru_maxrss / 1024)
    return Cost(min(cpu), min(wall), max(peak))


def python(code: str, runs: int = 5) -> Cost:
    """Cost of ``python -c CODE``."""
    return command([sys.executable, "-c", code], runs)


def best(work: Callable[[], object], runs: int = 10) -> float:
    """Shortest wall time of a call, in seconds, after one that is not counted."""
    work()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def matrix_rate(rows: int, inner: int, columns: int, runs: int = 10) -> float:
    """Single-precision multiply-adds of (rows, inner) x (inner, columns), in FLOP/s."""
    import torch

    a, b = torch.randn(rows, inner), torch.randn(inner, columns)
    out = torch.empty(rows, columns)
    repeats = max(int(2e8 / (rows * inner * columns)), 1)

    def work() -> None:
        for _ in range(repeats):
            torch.mm(a, b, out=out)

    with torch.inference_mode():
        return 2.0 * rows * inner * columns * repeats / best(work, runs)
