"""``terrella bench``: every task's speed, memory and skill on simulated data, in one table."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrella import measure, registry
from terrella.task import Judging, Task

CUBE = 1024  # side of the matrices whose product is the machine's rate
RUNS = 10
JUDGING = Judging(draws=200, rolls=19)


@dataclass(frozen=True)
class Speed:
    """What a task costs on its demo's scene.

    Attributes:
        rows: that the network sees.
        rate: rows a second through the network, best of ten.
        flops: operations a row, as the network carries them out.
        share: of the machine's single-precision matrix rate with as many threads.
        threads: that the network uses.
        startup: CPU seconds of a process that loads the weights and does nothing else.
        run: CPU seconds of ``terrella run --no-plot`` on the scene, start-up included.
        peak: MiB of that run.
    """

    rows: int
    rate: float
    flops: float
    share: float
    threads: int
    startup: float
    run: float
    peak: float


def bench(
    names: list[str], out: Path, *, speed: bool, skill: bool, note: Callable[[str], None]
) -> dict[str, Any]:
    """Measure tasks one after the other.

    Args:
        names: of tasks.
        out: folder for what the evaluations write.
        speed, skill: what to measure.
        note: told what is being done.

    Returns:
        Plain data: the machine, and by task ``speed`` and ``skill``.
    """
    import platform

    import torch

    made: dict[str, Any] = {}
    for name in names:
        task = registry.get(name)
        made[name] = {}
        if speed:
            note(f"{name}: speed")
            made[name]["speed"] = dataclasses.asdict(speed_of(task))
        if skill:
            note(f"{name}: skill")
            made[name]["skill"] = skill_of(task, out / name)
    cores = torch.get_num_threads()
    rate = measure.matrix_rate(CUBE, CUBE, CUBE, RUNS) if speed else None
    machine = {"system": platform.platform(), "python": platform.python_version(),
               "torch": torch.__version__, "cores": os.cpu_count(), "threads": cores,
               "matrix_flops": rate}  # fmt: skip
    return {"machine": machine, "tasks": made}


def speed_of(task: Task) -> Speed:
    """Throughput, start-up and memory of one task on its demo's scene."""
    import torch

    from terrella.predict import predict
    from terrella.verbs import warnings_as_lines
    from terrella.weights import load

    with tempfile.TemporaryDirectory() as folder, warnings_as_lines():
        scene = task.export(task.simulate(**task.demo), Path(folder) / "scene.nc")
        model = load(task.name)
        options = model.options()
        job = task.open(scene, options).jobs[0]
        before, after = task.reach(model.recipe, options)
        record = job.source.fetch(task.inputs, job.start - before, job.stop + after)
        windows = task.prepare(record, model.recipe, options)
        # The network's own rate: a run may ask for explanations, which cost many passes more.
        windows = dataclasses.replace(windows, extra={**windows.extra, "explain": "none"})
        forward = task.predict or predict
        spent = measure.best(lambda: forward(model.network, windows), RUNS)
        flops = operations(lambda: forward(model.network, windows))
        threads = getattr(model.network, "threads", None) or torch.get_num_threads()
        every = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            rate = measure.matrix_rate(CUBE, CUBE, CUBE, RUNS)
        finally:
            torch.set_num_threads(every)
        start = measure.python(f"import terrella; terrella.load({task.name!r})", 3)
        run = measure.command(
            [sys.executable, "-m", "terrella", "run", task.name, *map(str, scene), "--out",
             str(Path(folder) / "out"), "--no-plot"], 3,
        )  # fmt: skip
    rows = len(windows)
    return Speed(rows, rows / spent, flops / rows, flops / spent / rate, threads, start.cpu,
                 run.cpu, run.peak)  # fmt: skip


def operations(work: Callable[[], object]) -> float:
    """Floating-point operations of matrix products and convolutions that a call carries out.

    Recurrent layers are taken apart into their products for the count, which a fused kernel hides.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of a switch that it sets itself
        with torch.backends.mkldnn.flags(enabled=False), counter:
            work()
    return float(counter.get_total_flops())


def skill_of(task: Task, out: Path) -> dict[str, Any]:
    """A short evaluation on simulated data: verdict, gains, and the best attainable."""
    from terrella.learn import config as configs
    from terrella.learn.evaluate import BEST
    from terrella.learning import certified
    from terrella.verbs import warnings_as_lines

    recipe = configs.load(task)
    with warnings_as_lines():
        body = certified(task, [], "default", {}, task.evaluation(**task.quick), JUDGING, out,
                         recipe)  # fmt: skip
    best = {(r["metric"], r["lead"]): r["value"] for r in body["scores"]
            if r["model"] == BEST and r["group"] == "all"}  # fmt: skip
    gains = [g for g in body["gains"] if g["group"] == "all"]
    for gain in gains:
        gain["attainable"] = best.get((gain["metric"], gain["lead"]))
    return {"verdict": body["verdict"], "data": body["data"], "gains": gains}
