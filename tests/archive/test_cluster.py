"""Many workers give the bytes of one, and nothing is lost when they are killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.archive.conftest import content
from tests.archive.days import EVERY_CROSSING, cut, damage, flight, truncate
from tests.conftest import Said

import terrella

Fill = Callable[..., Said]


def command(days: Path, store: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "terrella", "run", "precipitation", str(days / "**/*.nc"), "--out",
        str(store), *more,
    ]  # fmt: skip


def run(days: Path, store: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(days, store, *more), capture_output=True, text=True, timeout=600)


def test_two_workers_give_the_bytes_of_one(fill: Fill, days: Path, tmp_path: Path) -> None:
    paths = sorted(days.glob("*.nc"))
    truncate(paths[0])
    damage(paths[5])
    two = run(days, tmp_path / "two", "--workers", "2")
    assert two.returncode == 1
    one = fill(days, tmp_path / "one")
    said = [x for x in two.stderr.splitlines() if x.startswith(("failed", "warning"))]
    assert sorted(said) == sorted(
        x for x in one.err.splitlines() if x.startswith(("failed", "warning"))
    )
    assert "done 5, skipped 0, failed 2 of 7" in two.stdout
    assert content(tmp_path / "two") == content(tmp_path / "one")
    outs = [
        terrella.open_catalogue(tmp_path / n).write(tmp_path / f"{n}.csv").read_bytes()
        for n in ("one", "two")
    ]
    assert outs[0] == outs[1] and outs[0].count(b"\n") > 10


@pytest.mark.enable_socket
@pytest.mark.filterwarnings("ignore")  # of the cluster's own
def test_a_cluster_by_its_address(fill: Fill, small: Path, tmp_path: Path) -> None:
    import dask
    from dask.distributed import LocalCluster

    # A profiler that looks often: what it holds on to must not show in a file.
    watched = {"distributed.worker.profile.enabled": True,
               "distributed.worker.profile.interval": "2ms"}  # fmt: skip
    with (
        dask.config.set(watched),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None,
            protocol="tcp://", host="127.0.0.1",
        ) as cluster,
    ):  # fmt: skip
        said = fill(small, tmp_path / "s", "--scheduler", cluster.scheduler_address,
                    "--workers", 0)  # fmt: skip
    assert said.code == 0, said.err
    fill(small, tmp_path / "one")
    assert content(tmp_path / "s") == content(tmp_path / "one")


@pytest.mark.enable_socket
@pytest.mark.filterwarnings("ignore")  # of the cluster's own
def test_a_cluster_that_is_not_there(
    fill: Fill, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terrella.archive.cluster.REACH", "1s")
    said = fill(small, tmp_path / "s", "--scheduler", "tcp://127.0.0.1:9", "--workers", 0)
    assert said.code == 1 and "cannot be reached" in said.line


def family_of(pid: int) -> list[int]:
    """Workers of a command and the process they are forked from."""
    found = []
    try:
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "resource_tracker" not in " ".join(child.cmdline()):
                    found.append(child.pid)
    except psutil.Error:
        pass  # it has ended
    return found


def test_a_unit_under_which_workers_die_is_given_up() -> None:
    from types import SimpleNamespace

    from dask.distributed import KilledWorker

    from terrella.archive.cluster import _outcome

    def told(error: Exception) -> Any:
        future = SimpleNamespace(status="error", exception=lambda: error)
        return _outcome(future, SimpleNamespace(key="poes"))  # type: ignore[arg-type]

    given_up = told(KilledWorker("k", SimpleNamespace(name="w"), 6))  # type: ignore[arg-type]
    assert given_up.key == "poes" and given_up.state == "failed"
    assert "6 workers died under it" in given_up.why and "--memory" in given_up.why
    assert told(ImportError("no torch")).state == "broken", "no unit could be done: the run stops"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_kills_lose_nothing(fill: Fill, tmp_path: Path, seed: int) -> None:
    """Workers, their parent and the command are killed by SIGKILL at times drawn by seed."""
    days, store = tmp_path / "days", tmp_path / "s"
    paths = cut(flight(60, 2.0, world=EVERY_CROSSING), days, 2.0)
    damage(paths[20])
    truncate(paths[40])
    rng = random.Random(seed)
    kills = ended = 0
    while kills < 10:
        process = subprocess.Popen(
            command(days, store, "--workers", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while process.poll() is None and kills < 10:
            time.sleep(rng.uniform(1.0, 6.0))
            family = family_of(process.pid)
            victim = process.pid if rng.random() < 0.3 or not family else rng.choice(family)
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    kills += 1
        if kills < 10 and process.poll() != -signal.SIGKILL:
            ended += 1  # it came to its end: begin anew, so that there is something to kill
            done = sorted((store / "units").glob("*"))  # none if it lost its workers at once
            for path in rng.sample(done, min(30, len(done))):
                path.unlink()
        process.communicate(timeout=600)
    last = run(days, store, "--workers", "2")
    assert last.returncode == 1 and "failed 2 of" in last.stdout, last.stderr
    assert fill(days, tmp_path / "one").code == 1
    assert content(store) == content(tmp_path / "one")
    found = terrella.open_catalogue(store).to_pandas()
    assert not found.duplicated(["start", "label", "satellite"]).any()
    assert not [p for p in store.rglob(".*") if p.name != ".lock"]


@pytest.mark.slow
def test_sixty_days(fill: Fill, tmp_path: Path) -> None:
    """Bad files among them; the bytes of a serial run; an event over midnight; flat in memory."""
    import json
    import re

    days = tmp_path / "days"
    paths = cut(flight(60), days)[:60]
    for extra in sorted(days.glob("*.nc"))[60:]:
        extra.unlink()
    damage(paths[20])
    truncate(paths[40])
    one, two = (run(days, tmp_path / n, "--workers", n) for n in "12")
    for ended in (one, two):
        assert "done 58, skipped 0, failed 2 of 60" in ended.stdout, ended.stderr
    assert content(tmp_path / "1") == content(tmp_path / "2")
    found = terrella.open_catalogue(tmp_path / "2").to_pandas()
    across = found["start"].dt.date != found["stop"].dt.date
    assert across.any()
    few = tmp_path / "few"
    few.mkdir()
    for path in paths[:10]:
        (few / path.name).symlink_to(path)
    assert run(few, tmp_path / "f", "--workers", "2").returncode == 0
    peaks = []
    for name in ("f", "2"):
        report = json.loads(next((tmp_path / name / "runs").iterdir()).read_text())
        peaks.append(max(report["peak"].values()))
    assert re.search(r"at most \d+ MiB a worker", two.stdout)
    assert peaks[1] < 1.15 * peaks[0]
