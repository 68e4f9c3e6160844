"""Measuring: processes from outside, and the machine's own matrix rate."""

from __future__ import annotations

import json
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


# A child's peak memory counts from what its parent held: a small process stands in between.
BETWEEN = """
import json, os, subprocess, sys, time
began = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
said = child.stderr.read().decode()
_, status, used = os.wait4(child.pid, 0)
code = os.waitstatus_to_exitcode(status)
wall = time.perf_counter() - began
print(json.dumps([used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024, code, said]))
"""


def command(arguments: Sequence[str], runs: int = 5) -> Cost:
    """Run a command and account for it as the operating system does."""
    cpu, wall, peak = [], [], []
    for _ in range(runs):
        words = [sys.executable, "-I", "-S", "-c", BETWEEN, *arguments]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        *spent, code, said = json.loads(done.stdout)
        if code:
            raise SystemExit(f"{' '.join(arguments)}\n{said}")
        cpu.append(spent[0])
        wall.append(spent[1])
        peak.append(spent[2])
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
