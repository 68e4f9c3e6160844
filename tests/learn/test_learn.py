"""Splits, batches, training and judging."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terrella import registry
from terrella.learn import config as configs
from terrella.learn.data import Rows, Shuffled
from terrella.learn.split import by_group, guard
from terrella.learn.train import Training, fit
from terrella.tasks.precipitation.prepare import prepare, sample
from terrella.tasks.precipitation.simulate import World, simulate
from terrella.tasks.precipitation.task import Options, Recipe, task
from terrella.threads import on_threads
from terrella.types import Fold, Refused, Scene, Windows

RECIPE = Recipe(network="conv", features="counts", window=13, hidden=8, dense=8, dropout=0.1)
QUICK = Training(epochs=3, batch=256, lr=3e-3, seed=1, patience=5)


def windows(seed: int, hours: float = 6.0) -> Windows:
    start = np.datetime_as_string(np.datetime64("2013-01-01") + seed, "D")
    return prepare(simulate(seed, hours, start, world=World(rep=0.8, css=0.8)), RECIPE, Options())


@pytest.fixture(scope="module")
def sets() -> tuple[list[Windows], list[Windows]]:
    return [windows(1), windows(2)], [windows(3)]


@settings(deadline=None)
@given(
    labels=st.lists(st.integers(0, 30), min_size=1, max_size=200),
    shares=st.lists(st.floats(0.05, 1.0), min_size=2, max_size=4),
    seed=st.integers(0, 99),
)
def test_groups_never_straddle_a_split(labels: list[int], shares: list[float], seed: int) -> None:
    groups = np.array(labels)
    if len(np.unique(groups)) < len(shares):
        with pytest.raises(Refused, match="cannot be split"):
            by_group(groups, shares, seed)
        return
    parts = by_group(groups, shares, seed)
    assert np.array(parts).sum(0).tolist() == [1] * len(groups)
    owners = [set(groups[p]) for p in parts]
    assert all(owners)
    assert sum(len(o) for o in owners) == len(set(labels))


def test_a_leaking_fold_is_refused(sets: tuple[list[Windows], list[Windows]]) -> None:
    train, held = sets
    clean = Fold("clean", (Scene({}, held[0]),), tuple(train), keys=("orbit",))
    guard(clean)
    with pytest.raises(Refused, match="orbit lie in both train and test"):
        guard(dataclasses.replace(clean, train=(*train, held[0])))
    with pytest.raises(Refused, match="lie in both"):
        guard(dataclasses.replace(clean, validation=(held[0],)))
    with pytest.raises(Refused, match="labelled"):
        guard(dataclasses.replace(clean, keys=("storm",)))


def test_batches_hold_what_the_windows_hold(sets: tuple[list[Windows], list[Windows]]) -> None:
    rows = Rows(sets[0], sample, seed=3)
    index = np.array([0, len(rows) - 1, 5, len(rows) // 2])
    batch = rows[index]
    order = index[np.argsort(rows.part[index], kind="stable")]
    for k, i in enumerate(order):
        part, row = sets[0][rows.part[i]], rows.row[i]
        assert torch.equal(batch["x"]["flux"][k], part.x["flux"][row])
        assert part.y is not None
        assert batch["y"]["class"][k] == part.y["class"][row]
        assert part.valid[row]


def test_thinning_keeps_events_and_stands_for_the_whole(
    sets: tuple[list[Windows], list[Windows]],
) -> None:
    part = sets[0][0]
    assert part.y is not None
    rows, weight = sample(part, np.random.default_rng(0))
    events = np.flatnonzero((part.y["class"].numpy() > 0) & part.valid)
    assert set(events) <= set(rows)
    assert weight.sum() == pytest.approx(part.valid.sum(), rel=0.15)


@given(rows=st.integers(1, 300), batch=st.integers(1, 64), epoch=st.integers(0, 5))
def test_an_epoch_shows_each_row_once(rows: int, batch: int, epoch: int) -> None:
    order = Shuffled(rows, batch, seed=7)
    order.set_epoch(epoch)
    seen = np.concatenate(list(order))
    assert sorted(seen) == list(range(rows))
    assert len(list(order)) == len(order)
    order.set_epoch(epoch)
    assert np.array_equal(np.concatenate(list(order)), seen)


def test_training_lowers_the_loss_and_repeats(
    sets: tuple[list[Windows], list[Windows]], tmp_path: Path
) -> None:
    first = fit(task, RECIPE, *sets, QUICK, tmp_path / "a", progress=False)
    with on_threads(1):  # as on a machine with other cores
        again = fit(task, RECIPE, *sets, QUICK, tmp_path / "b", progress=False)
        assert torch.get_num_threads() == 1, "given back as it was"
    for name, values in first.state_dict().items():
        assert torch.equal(values, again.state_dict()[name]), name
    batch = Rows(sets[1], sample)[np.arange(500)]
    torch.manual_seed(0)
    fresh = task.network(RECIPE)
    fresh.fit_scale(batch["x"])
    with torch.no_grad():
        losses = [
            float(task.loss(n.eval()(**batch["x"]), batch["y"], batch["weight"]))
            for n in (fresh, first)
        ]
    assert not torch.are_deterministic_algorithms_enabled(), "global settings are given back"
    assert losses[1] < 0.8 * losses[0]


SCRIPT = """
import os, sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from learn.test_learn import QUICK, RECIPE, windows
from terrella.learn import train
from terrella.tasks.precipitation.task import task
if sys.argv[2] == "die":
    import lightning
    def fall(self):
        if self.current_epoch == 2:
            os.kill(os.getpid(), 9)
    train.Learner.on_train_epoch_end = fall
n = train.fit(task, RECIPE, [windows(1), windows(2)], [windows(3)], QUICK, Path(sys.argv[1]),
              progress=False)
import safetensors.torch
safetensors.torch.save_file(n.state_dict(), sys.argv[1] + "/end.safetensors")
"""


def test_a_killed_run_goes_on_to_the_same_result(
    sets: tuple[list[Windows], list[Windows]], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    tests = Path(__file__).parents[1]
    script = SCRIPT.format(root=str(tests.parent), tests=str(tests))
    (tmp_path / "a").mkdir()
    call = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "a")]
    killed = subprocess.run([*call, "die"], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "a/checkpoints/last.ckpt").is_file()
    resumed = subprocess.run([*call, "live"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    unbroken = fit(task, RECIPE, *sets, QUICK, tmp_path / "b", progress=False)
    for name, values in load_file(tmp_path / "a/end.safetensors").items():
        assert torch.equal(values, unbroken.state_dict()[name]), name


def test_checkpoints_of_other_settings_are_not_mixed(
    sets: tuple[list[Windows], list[Windows]], tmp_path: Path
) -> None:
    short = dataclasses.replace(QUICK, epochs=1)
    fit(task, RECIPE, *sets, short, tmp_path, progress=False)
    with pytest.raises(Refused, match="other settings"):
        fit(task, RECIPE, *sets, dataclasses.replace(short, lr=1e-4), tmp_path, progress=False)
    fit(
        task,
        RECIPE,
        *sets,
        dataclasses.replace(short, lr=1e-4),
        tmp_path,
        progress=False,
        fresh=True,
    )


def test_rows_without_truth_are_refused() -> None:
    part = dataclasses.replace(windows(1, 1.0), y=None)
    with pytest.raises(Refused, match="no targets"):
        Rows([part])
    empty = dataclasses.replace(windows(1, 1.0), valid=np.zeros(len(part), bool))
    with pytest.raises(Refused, match="no valid row"):
        Rows([empty])


def test_a_recipe_file_names_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for body, hint in (
        ("[train]\nepoch = 3", "did you mean 'epochs'"),
        ("[recipe]\nwindows = 3", "did you mean 'window'"),
        ("[trian]\n", "did you mean 'train'"),
        ("[train", "not a recipe file"),
    ):
        path.write_text(body)
        with pytest.raises(Refused, match=hint):
            configs.load(task, path)
    assert configs.load(task, seed=9).train.seed == 9
    for name in registry.names():
        assert configs.load(registry.get(name)).name == "default"


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The command with two CPU processes (ddp) ends near the loss of one."""
    small = tmp_path / "small.toml"
    small.write_text(
        '[recipe]\nnetwork = "conv"\nfeatures = "counts"\nwindow = 13\nhidden = 8\ndense = 8\n'
        "dropout = 0.0\n[data]\ndays = 2\nvalidation_days = 1\n"
        "[train]\nepochs = 2\nbatch = 256\n"
    )
    losses = {}
    for devices, batch in ((1, 256), (2, 128)):
        out = tmp_path / str(devices)
        text = small.read_text().replace("batch = 256", f"batch = {batch}")
        (tmp_path / f"{devices}.toml").write_text(text)
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "terrella", "train", "precipitation", "--no-judge", "--out", out,
             "--config", tmp_path / f"{devices}.toml", "--devices", str(devices),
             "--accelerator", "cpu", *(["--strategy", "ddp"] if devices > 1 else [])],
            check=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert time.monotonic() - began < 500
        state = torch.load(out / "checkpoints/best.ckpt", weights_only=True)
        losses[devices] = float(state["callbacks"][
            next(k for k in state["callbacks"] if k.startswith("ModelCheckpoint"))
        ]["best_model_score"])  # fmt: skip
    assert losses[2] == pytest.approx(losses[1], rel=0.05)
