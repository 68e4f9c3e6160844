"""Speed and memory of the precipitation task: `python benchmarks/precipitation.py`.

Goals: the network at half of the machine's matrix rate or better; a day through
`terrella run --no-plot` in 2.5 times the CPU time of its imports or less; under 700 MB; ten days in
the memory of one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from terrella.measure import best, command, matrix_rate, python
from terrella.predict import ROWS, predict
from terrella.steps.window import as_tensor, slide
from terrella.tasks.precipitation.network import build
from terrella.tasks.precipitation.simulate import export, simulate
from terrella.tasks.precipitation.task import Recipe
from terrella.types import Windows

DAY = 43_200


def operations(recipe: Recipe, shared_once: bool = False) -> float:
    """Floating-point operations of one window.

    Two directions of ``window`` steps, each with a product of the input and one of the state, then
    the dense layers: as the network is defined. ``shared_once`` leaves out what need not be done
    for each window: input products that overlapping windows share, and products of the zero state.
    """
    n = recipe.hidden
    dense = 2 * 2 * n * recipe.dense + 2 * recipe.dense * 3
    if shared_once:
        return 2 * (recipe.window - 1) * n * 4 * n * 2 + 2 * 8 * 8 * n + dense
    return 2 * recipe.window * (8 + n) * 4 * n * 2 + dense


def network() -> None:
    """The network, which runs on one core, against one core and against all."""
    recipe = Recipe()
    windows_ = slide(as_tensor(np.random.default_rng(0).normal(size=(DAY, 8))), recipe.window)
    rows = len(windows_)
    windows = Windows({"flux": windows_}, np.zeros(rows, "M8[ns]"), np.ones(rows, bool))
    model = build(recipe)
    cores = torch.get_num_threads()
    every = matrix_rate(ROWS, recipe.hidden, 4 * recipe.hidden)
    torch.set_num_threads(1)
    rate = matrix_rate(ROWS, recipe.hidden, 4 * recipe.hidden)
    speed = rows / best(lambda: predict(model, windows))
    whole, once = speed * operations(recipe), speed * operations(recipe, shared_once=True)
    shapes = f"({ROWS},{recipe.hidden})x({recipe.hidden},{4 * recipe.hidden})"
    print(f"machine, {shapes}: {rate / 1e9:.0f} GFLOP/s on one core, {every / 1e9:.0f} on {cores}")
    print(f"published network: {speed:,.0f} windows/s on one core (goal 50 %)")
    print(f"  of one core: {whole / rate:.0%} as defined, {once / rate:.0%} with shared work once")
    print(f"  of {cores} cores: {whole / every:.0%} as defined, {once / every:.0%}")


def runs(folder: Path) -> None:
    days = []
    for k in range(10):
        start = np.datetime_as_string(np.datetime64("2013-01-01") + k, "D")
        path = folder / f"poes_n18_{start.replace('-', '')}_proc.nc"
        days += export(simulate(k, 24.0, start), path)
    imports = python("import torch, xarray, h5netcdf")
    base = [sys.executable, "-m", "terrella", "run", "precipitation", "--no-plot", "--out"]
    one = command([*base, str(folder / "one"), str(days[0])])
    ten = command([*base, str(folder / "ten"), *map(str, days)], runs=2)
    print(f"import torch, xarray, h5netcdf: {imports.cpu:.2f} s CPU")
    print(f"one day: {one.cpu:.2f} s CPU, {one.cpu / imports.cpu:.2f} times the imports (goal 2.5)")
    print(
        f"one day: {one.peak:.0f} MiB; ten days: {ten.peak:.0f} MiB (goal 700, and no more for ten)"
    )
    print(f"each further day: {(ten.cpu - one.cpu) / 9:.2f} s CPU")


def start() -> None:
    base = python("import typer, rich", runs=10)
    light = command([sys.executable, "-m", "terrella", "--help"], runs=10)
    print(f"terrella --help: {light.cpu / base.cpu:.2f} times `import typer, rich` (goal 2)")


if __name__ == "__main__":
    start()
    network()
    with tempfile.TemporaryDirectory() as scratch:
        runs(Path(scratch))
