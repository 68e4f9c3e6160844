"""A store holds what a single pass gives, whatever happened on the way."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from tests.archive.conftest import HOURS, content
from tests.archive.days import EVERY_CROSSING, damage, flight, truncate
from tests.conftest import Said

import terrella as package
from terrella.archive.store import Store
from terrella.sources import poes
from terrella.sources.poes import PoesSource, inspect

Fill = Callable[..., Said]
WHERE = ["start", "stop", "label", "probability", "L", "MLT", "lat", "lon", "satellite", "flags"]


def counts(said: Said) -> tuple[int, int, int]:
    found = re.search(r"done (\d+), skipped (\d+), failed (\d+)", said.out)
    assert found, said.out + said.err
    return int(found[1]), int(found[2]), int(found[3])


def test_the_catalogue_is_that_of_plain_runs(
    fill: Fill, terrella: Fill, small: Path, tmp_path: Path
) -> None:
    assert fill(small, tmp_path / "s").code == 0
    said = terrella("run", "precipitation", small / "*.nc", "--no-plot", "--out", tmp_path / "p")
    assert said.code == 0, said.err
    plain = sorted((tmp_path / "p").glob("*.csv"))
    lines = [p.read_text().splitlines() for p in plain]
    expected = [lines[0][0], *(row for each in lines for row in each[1:])]
    out = package.open_catalogue(tmp_path / "s").write(tmp_path / "all.csv")
    assert out.read_text().splitlines() == expected
    assert len(expected) > 10
    both = [sorted((tmp_path / n).rglob("*.nc")) for n in "sp"]
    assert len(both[0]) == 7
    for mine, its in zip(*both, strict=True):
        with xr.open_dataset(mine) as a, xr.open_dataset(its) as b:
            xr.testing.assert_identical(a, b)


def test_events_across_a_cut_are_whole_and_listed_once(
    fill: Fill, small: Path, tmp_path: Path
) -> None:
    assert fill(small, tmp_path / "s").code == 0
    found = package.open_catalogue(tmp_path / "s").to_pandas()
    whole = poes.write(flight(6, HOURS, world=EVERY_CROSSING), tmp_path / "one_n18_.nc", "n18")
    file = inspect(whole)
    model = package.load("precipitation")
    once = package.run(model, PoesSource((file,)), file.start, file.stop).events
    assert once is not None
    for column in ("start", "stop"):
        once[column] = pd.to_datetime(once[column]).astype(found[column].dtype)
    pd.testing.assert_frame_equal(
        found[WHERE], once[WHERE], check_dtype=False, check_index_type=False
    )
    day = np.timedelta64(round(HOURS * 3600), "s")
    origin = pd.Timestamp("2013-01-01", tz="UTC")
    across = ((found["start"] - origin) // day) != ((found["stop"] - origin) // day)
    assert across.sum() == 1, "the archive was cut so that one event lies across"


def test_a_second_run_does_nothing(fill: Fill, days: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    assert counts(fill(days, store)) == (7, 0, 0)
    before = content(store)
    stamps = {p: p.stat().st_mtime_ns for p in store.rglob("*.nc")}
    assert counts(fill(days, store)) == (0, 7, 0)
    # Then files are read again, and found the same; so are files too young to be remembered.
    (store / "hashes.tsv").unlink(missing_ok=True)
    assert counts(fill(days, store)) == (0, 7, 0)
    shutil.move(days, tmp_path / "elsewhere")
    assert counts(fill(tmp_path / "elsewhere", store)) == (0, 7, 0)
    assert content(store) == before
    assert stamps == {p: p.stat().st_mtime_ns for p in store.rglob("*.nc")}


def test_only_what_changed_is_done_again(fill: Fill, days: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    fill(days, store)
    third = sorted(days.glob("*.nc"))[3]
    time = poes.inspect(third)
    record = PoesSource((time,)).fetch(package.load("precipitation").task.inputs, time.start,
                                       time.stop)  # fmt: skip
    record["e4_0"] = record["e4_0"] * 2
    poes.write(record, third)
    said = fill(days, store, "--dry-run")
    assert "would do 3, skip 4" in said.out and "its inputs changed" in said.out
    before = content(store)
    assert content(store) == before, "a dry run writes nothing"
    assert counts(fill(days, store)) == (3, 4, 0), "the file and its two neighbours"
    fill(days, tmp_path / "fresh")
    assert content(store) == content(tmp_path / "fresh")


def test_what_is_missing_or_cut_short_in_the_store_is_made_again(
    fill: Fill, days: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s"
    fill(days, store)
    before = content(store)
    records = sorted((store / "units").iterdir())
    records[0].unlink()
    records[1].write_text(records[1].read_text()[:100])
    truncate(sorted(store.rglob("*.nc"))[2])
    next(store.rglob("*201301*.parquet")).with_name(".half.parquet").write_bytes(b"PAR1")
    said = fill(days, store)
    assert counts(said) == (3, 4, 0)
    assert content(store) == before
    with (store / "hashes.tsv").open("a") as stream:
        stream.write("12\t34")  # a kill in the middle of a line
    assert counts(fill(days, store)) == (0, 7, 0)


def test_bad_files_cost_only_themselves(fill: Fill, days: Path, tmp_path: Path) -> None:
    store, good = tmp_path / "s", tmp_path / "good"
    shutil.copytree(days, good)
    paths = sorted(days.glob("*.nc"))
    truncate(paths[1])
    damage(paths[4])
    paths[6].write_bytes(b"")
    said = fill(days, store)
    assert said.code == 1
    assert counts(said) == (4, 0, 3)
    assert said.line.startswith("terrella: 3 units failed")
    for path, why in ((paths[1], "truncated"), (paths[4], "damaged"), (paths[6], "is empty")):
        assert re.search(rf"failed: .*{path.name}.*{why}", said.err), said.err
    report = json.loads(next((store / "runs").iterdir()).read_text())
    assert report["done"] == 4 and len(report["failed"]) == 1 and len(report["refused"]) == 2
    assert "left out at the seam" in said.err, "its neighbours say what they lack"
    assert counts(fill(days, store)) == (0, 4, 3), "tried again, and nothing else"
    for path in paths:
        shutil.copy(good / path.name, path)
    assert fill(days, store).code == 0
    fill(good, tmp_path / "fresh")
    assert content(store) == content(tmp_path / "fresh")


def test_a_file_that_turns_bad_takes_its_unit_along(fill: Fill, days: Path, tmp_path: Path) -> None:
    fill(days, tmp_path / "s")
    paths = sorted(days.glob("*.nc"))
    truncate(paths[1])
    damage(paths[4])
    fill(days, tmp_path / "s")
    fill(days, tmp_path / "fresh")
    assert content(tmp_path / "s") == content(tmp_path / "fresh")


def test_units_of_no_input_are_kept_until_pruned(fill: Fill, days: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    fill(days, store)
    for path in sorted(days.glob("*.nc"))[:3]:
        path.unlink()
    said = fill(days, store)
    assert "3 units" in said.err and "--prune" in said.err
    assert package.open_catalogue(store).units == 7
    assert "would drop, of no input given" in fill(days, store, "--dry-run", "--prune").out
    fill(days, store, "--prune")
    fill(days, tmp_path / "fresh")
    assert content(store) == content(tmp_path / "fresh")


def test_a_span_chooses_whole_units(fill: Fill, small: Path, tmp_path: Path) -> None:
    said = fill(small, tmp_path / "s", "--start", "2013-01-01T01:00", "--stop", "2013-01-01T05:00")
    assert counts(said) == (3, 0, 0)
    assert counts(fill(small, tmp_path / "s")) == (4, 3, 0)
    fill(small, tmp_path / "fresh")
    assert content(tmp_path / "s") == content(tmp_path / "fresh")


def test_other_settings_never_mix(fill: Fill, terrella: Fill, small: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    fill(small, store)
    before = content(store)
    said = fill(small, store, "--p-on", 0.7)
    assert said.code == 1 and "made with other options" in said.line and "--renew" in said.line
    said = terrella("run", "ech", small / "*.nc", "--out", store)
    assert said.code == 1
    assert content(store) == before
    assert counts(fill(small, store, "--p-on", 0.7, "--renew")) == (7, 0, 0)
    fill(small, tmp_path / "fresh", "--p-on", 0.7)
    assert content(store) == content(tmp_path / "fresh")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    assert "is no store" in fill(small, tmp_path / "mine").line
    assert (tmp_path / "mine/thesis.tex").exists()


def test_events_alone(fill: Fill, small: Path, tmp_path: Path) -> None:
    fill(small, tmp_path / "s", "--no-series")
    fill(small, tmp_path / "t")
    assert not list((tmp_path / "s").rglob("*.nc"))
    tables = [package.open_catalogue(tmp_path / n).to_table() for n in "st"]
    assert tables[0].equals(tables[1])


def test_one_command_at_a_time(fill: Fill, small: Path, tmp_path: Path) -> None:
    with Store(tmp_path).locked():
        assert "another command is at work" in fill(small, tmp_path).line


def test_patterns_and_folders(terrella: Fill, small: Path, tmp_path: Path) -> None:
    said = terrella("run", "precipitation", small / "*.cdf", "--out", tmp_path)
    assert said.code == 1 and "matches no file" in said.line
    said = terrella("run", "precipitation", tmp_path, "--out", tmp_path / "o")
    assert "holds no *.nc file" in said.line
    said = terrella("run", "precipitation", small, "--out", tmp_path / "s", "--workers", 1)
    assert counts(said) == (7, 0, 0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 700 kB, which holds three of the seven units."""
    place = tmp_path / "disk"
    place.mkdir()
    call = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(call, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_stops_the_run_and_leaves_a_store(
    fill: Fill, small: Path, disk: Path, tmp_path: Path
) -> None:
    store = disk / "s"
    said = fill(small, store)
    assert said.code == 1
    assert "No space left on device" in said.line and "again to go on" in said.line
    done = counts(said)[0]
    assert 0 < done < 7
    found = package.open_catalogue(store)
    assert found.units == done
    assert found.count() == len(found.to_pandas())
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    assert counts(fill(small, store)) == (7 - done, done, 0)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    said = fill(small, store, "--p-on", 0.7, "--renew")
    assert said.code == 1 and "Read-only file system" in said.line
    assert package.open_catalogue(store).units == 7
    fill(small, tmp_path / "fresh")
    assert content(store) == content(tmp_path / "fresh")


def test_a_disk_that_fills_for_any_writer(small: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk where nothing can be mounted."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    call = [sys.executable, "-m", "terrella", "run", "precipitation", str(small / "*.nc"),
            "--workers", "1", "--out", str(tmp_path / "s")]  # fmt: skip
    ended = subprocess.run(call, preexec_fn=limit, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and "cannot be written" in ended.stderr, ended.stderr
    assert package.open_catalogue(tmp_path / "s").count() == 0
    assert not [p for p in (tmp_path / "s").rglob(".*") if p.name != ".lock"]


def test_a_store_that_cannot_be_made(fill: Fill, small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = fill(small, tmp_path / "file/s")
    assert said.code == 1 and "cannot be written" in said.line
