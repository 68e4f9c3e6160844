"""Speed of the geoflux task: `python benchmarks/geoflux.py [DATA]`.

Goals: a ten-year daily back-test (3,650 issue times), reading aside, in the CPU time of `python -c
'import torch, xarray'` or less; training from scratch in under ten minutes on two cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import terrella
from terrella import registry
from terrella.learn import config as configs
from terrella.learn.train import fit
from terrella.measure import matrix_rate, python
from terrella.tasks.geoflux.inputs import Inputs, assemble, open_source
from terrella.tasks.geoflux.judge import training
from terrella.tasks.geoflux.simulate import as_series, simulate
from terrella.tasks.geoflux.task import Options

RUNS = 10


def backtest(source: Inputs, issues: int = 3650) -> None:
    model = terrella.load("geoflux")
    time_ = source.series["flux"]["time"].values
    stop = time_[-1] + np.timedelta64(1, "h")
    start = stop - np.timedelta64(issues, "D")
    options = Options()
    taken = []
    for _ in range(RUNS):
        began = time.process_time()
        made = terrella.run(model, source, start, stop, options)
        taken.append(time.process_time() - began)
    imports = python("import torch, xarray", runs=RUNS).cpu
    rate = matrix_rate(1024, 256, 256)
    print(f"{len(made.series['time'])} issue times: {min(taken):.2f} s CPU")
    print(f"import torch, xarray: {imports:.2f} s CPU; ratio {min(taken) / imports:.2f} (goal 1)")
    flops = 2 * sum(p.numel() for p in model.network.parameters()) * len(made.series["time"])
    print(f"network's share at the machine's {rate / 1e9:.0f} GFLOP/s: {flops / rate:.3f} s")


def train(paths: list[Path]) -> None:
    task = registry.get("geoflux")
    config = configs.load(task)
    learn, held = training(paths, {"years": 5}, config.recipe, Options())
    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fit(task, config.recipe, learn, held, config.train, Path(folder), progress=False)
    print(
        f"training on {int(learn[0].valid.sum())} rows: {time.perf_counter() - wall:.0f} s, "
        f"{time.process_time() - cpu:.0f} s CPU on {torch.get_num_threads()} threads (goal 600 s)"
    )


if __name__ == "__main__":
    data = [Path(p) for p in sys.argv[1:]]
    scene = assemble(as_series(simulate(0, 24 * 3700.0)), Options(), "simulated")
    backtest(scene)
    if data:
        open_source(data, Options())
    train(data)
