"""The command from end to end, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import Said

from terrella import registry
from terrella.sources import poes
from terrella.sources.sem2 import FLUX as VARIABLES
from terrella.types import Record

GOLDEN = Path(__file__).parent / "golden"


def test_a_file_becomes_a_catalogue(
    terrella: Callable[..., Said], sem2: Callable[..., Path], tmp_path: Path
) -> None:
    path, out = sem2(), tmp_path / "out"
    said = terrella("run", "precipitation", path, "--out", out)
    assert said.code == 0, said.err
    stem = f"{path.stem}.precipitation"
    assert {f"{stem}.nc", f"{stem}.csv", f"{stem}.png", "run.json"} <= {
        p.name for p in out.iterdir()
    }
    record = json.loads((out / "run.json").read_text())
    assert record["weights"]["sha256"] and record["options"]["postprocess"] == "terrella"
    assert len(record["inputs"][str(path)]) == 64
    assert record["refused"] == []
    table = pd.read_csv(out / f"{stem}.csv")
    assert {"start", "stop", "label", "probability", "L", "MLT", "lat", "lon", "satellite"} <= set(
        table.columns
    )


def test_no_plot_imports_no_plotting_library(sem2: Callable[..., Path], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom terrella.cli import main\n"
        f"try: main(['run', 'precipitation', {str(sem2())!r}, '--no-plot', '--out', "
        f"{str(tmp_path / 'o')!r}])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'matplotlib' not in sys.modules and 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "arguments",
    [[], ["tasks"], ["run", "--help"], ["--help"], *[["tasks", n] for n in registry.names()],
     *[["run", n, "--help"] for n in registry.names()]],
)  # fmt: skip
def test_help_and_lists_import_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom terrella.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as e: pass\n"
        "assert not {'torch', 'xarray', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_terrella_is_light() -> None:
    code = "import sys, terrella; assert not {'torch', 'xarray', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["run", "precipitatoin", "x", "--out", "o"], ["run", "precipitation", "--nope"],
     ["run", "precipitation", "x"], ["run", "precipitation", "x", "--out", "o", "--p-on", "high"],
     ["run", "precipitation", "x", "--out", "o", "--postprocess", "magic"]],
)  # fmt: skip
def test_wrong_use_exits_2(terrella: Callable[..., Said], arguments: list[str]) -> None:
    said = terrella(*arguments)
    assert said.code == 2
    assert "Traceback" not in said.err


def shortened(record: Record, path: Path, size: int = 6) -> Path:
    return poes.write({k: v.isel(time=slice(size)) for k, v in record.items()}, path)


def make_bad(kind: str, record: Record, folder: Path) -> Path:
    path = folder / "poes_n18_20191024_proc.nc"
    if kind == "missing":
        return path
    if kind == "directory":
        path.mkdir()
        return path
    if kind in ("empty", "text"):
        path.write_text("" if kind == "empty" else "not netcdf\n" * 50)
        return path
    if kind == "6 samples":
        return shortened(record, path)
    poes.write(record, path)
    if kind == "truncated":
        raw = path.read_bytes()
        path.write_bytes(raw[: len(raw) // 2])
        return path
    import h5py

    with h5py.File(path, "r+") as file:
        if kind == "no E4":
            del file["mep_ele_tel0_flux_e4"]
        elif kind == "all fills":
            for name in VARIABLES.values():
                file[name][...] = -999.0
        elif kind == "NaN flux":
            file["mep_ele_tel90_flux_e2"][50:60] = np.nan
        elif kind == "non-monotonic time":
            file["time"][100:120] = file["time"][100:120][::-1]
        elif kind == "time steps backward":
            file["time"][500:] = file["time"][500:] - np.uint64(3_600_000)
    return path


BAD = [
    "missing", "directory", "empty", "text", "truncated", "6 samples", "no E4", "all fills",
    "NaN flux", "non-monotonic time", "time steps backward",
]  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_exit_1(
    terrella: Callable[..., Said], record: Record, tmp_path: Path, kind: str
) -> None:
    path, out = make_bad(kind, record, tmp_path), tmp_path / "out"
    said = terrella("run", "precipitation", path, "--out", out)
    assert said.code == 1
    assert path.name in said.line
    assert not list(out.glob("*.nc")) and not list(out.glob("*.csv")) and not list(out.glob(".*"))


def test_a_batch_goes_on_past_bad_files(
    terrella: Callable[..., Said], record: Record, tmp_path: Path
) -> None:
    good = poes.write(record, tmp_path / "poes_n19_20191024_proc.nc", "n19")
    (tmp_path / "bad").mkdir()
    bad = make_bad("NaN flux", record, tmp_path / "bad")
    gone = tmp_path / "poes_n18_19990101_proc.nc"
    said = terrella("run", "precipitation", bad, gone, good, "--out", tmp_path / "out", "--no-plot")
    assert said.code == 1
    assert "2 of 3 inputs refused" in said.line
    listed = [x for x in said.err.splitlines() if x.startswith("refused: ")]
    assert len(listed) == 2 and any(str(bad) in x for x in listed)
    assert (tmp_path / "out" / f"{good.stem}.precipitation.nc").is_file()
    refused = json.loads((tmp_path / "out" / "run.json").read_text())["refused"]
    assert {r["what"] for r in refused} == {str(bad), str(gone)}


@pytest.fixture
def exported(terrella: Callable[..., Said], tmp_path: Path) -> Path:
    said = terrella("weights", "export", "precipitation", "default", "--out", tmp_path / "w")
    assert said.code == 0
    return tmp_path / "w" / "default.safetensors"


def test_bad_weights_are_one_line_and_exit_1(
    terrella: Callable[..., Said], exported: Path, sem2: Callable[..., Path], tmp_path: Path
) -> None:
    data, out = sem2(), tmp_path / "out"

    def refused(path: object) -> str:
        said = terrella("run", "precipitation", data, "--weights", path, "--out", out)
        assert said.code == 1 and not out.exists()
        return said.line

    card = exported.with_suffix(".toml")
    text = card.read_text()
    body = exported.read_bytes()

    card.write_text(text.replace('task = "precipitation"', 'task = "geoflux"'))
    assert "weights of geoflux" in refused(exported)
    card.write_text(text)
    exported.write_bytes(body.replace(b'"precipitation"', b'"precipitatiox"'))
    assert "not of precipitation" in refused(exported)
    exported.write_bytes(body[:-4] + b"\0\0\1\0")
    assert "sha256" in refused(exported)
    exported.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.")
    assert "not a safetensors file" in refused(exported)
    pickled = tmp_path / "weights.pkl"
    pickled.write_bytes(b"\x80\x04.")
    assert "read from .safetensors files only" in refused(pickled)
    exported.write_bytes(body)
    card.unlink()
    assert "no card" in refused(exported)
    assert "did you mean 'default'" in refused("defualt")
    assert "no such weight file" in refused(tmp_path / "none.safetensors")


def test_the_window_of_time_is_cut(
    terrella: Callable[..., Said], sem2: Callable[..., Path], tmp_path: Path
) -> None:
    import xarray as xr

    path = sem2()
    span = ("--start", "2019-10-24T00:30:00Z", "--stop", "2019-10-24T01:00:00")
    said = terrella("run", "precipitation", path, "--out", tmp_path, "--no-plot", *span)
    assert said.code == 0
    with xr.open_dataset(tmp_path / f"{path.stem}.precipitation.nc", engine="h5netcdf") as made:
        assert made["time"].to_numpy()[0] >= np.datetime64("2019-10-24T00:30:00")
        assert made["time"].to_numpy()[-1] < np.datetime64("2019-10-24T01:00:00")
        # Windows reach over the edges that were asked for.
        assert not np.isnan(made["probability"].to_numpy()).any()
    late = terrella("run", "precipitation", path, "--out", tmp_path, "--start", "2030-01-01")
    assert late.code == 1 and "2019-10-24" in late.line
    odd = terrella("run", "precipitation", path, "--out", tmp_path, "--start", "yesterday")
    assert odd.code == 1 and "is not a time" in odd.line


def test_simulate_run_evaluate_agree(terrella: Callable[..., Said], tmp_path: Path) -> None:
    paths = []
    for seed in (9001, 9002):
        path = tmp_path / f"poes_n18_2013010{seed - 9000}_proc.nc"
        said = terrella("simulate", "precipitation", "--out", path, "--seed", seed, "--hours", 3)
        assert said.code == 0 and path.is_file()
        paths.append(path)
    said = terrella(
        "evaluate", "precipitation", paths[0], "--out", tmp_path / "scores", "--learn", 2,
        "--rolls", 2, "--draws", 50,
    )  # fmt: skip
    assert said.code == 0, said.err
    scores = pd.read_csv(tmp_path / "scores" / "scores.csv")
    assert list(scores.columns) == [
        "task", "data", "split", "group", "lead", "model", "metric", "value", "lo", "hi", "n",
    ]  # fmt: skip
    assert set(scores["model"]) == {"terrella", "none", "L-MLT", "ratio-prominence", "lightgbm"}
    for name in ("certificate.json", "certificate.md", "certificate.html", "reliability.png"):
        assert (tmp_path / "scores" / name).is_file()
    body = json.loads((tmp_path / "scores" / "certificate.json").read_text())
    assert set(body["inputs"]) == {paths[0].name}
    assert body["verdict"] in said.out.replace("\n", "")
    # It is of the packaged weights, whose card may not be written; a copy of them may carry it.
    packaged = terrella("weights", "certify", "precipitation", "default",
                        tmp_path / "scores" / "certificate.json")  # fmt: skip
    assert packaged.code == 1 and "packaged weights keep their card" in packaged.line
    assert terrella("weights", "export", "precipitation", "default", "--out", tmp_path).code == 0
    copy = tmp_path / "default.safetensors"
    own = terrella("weights", "certify", "precipitation", copy,
                   tmp_path / "scores" / "certificate.json")  # fmt: skip
    assert own.code == 0 and body["verdict"] in own.out
    assert terrella("weights", "show", "precipitation", copy).out.count(body["verdict"]) == 1


def test_weights_are_listed_shown_and_imported(terrella: Callable[..., Said]) -> None:
    assert "default" in terrella("weights", "list").out
    shown = terrella("weights", "show", "precipitation")
    assert shown.code == 0 and "ratio-prominence" in shown.out and "sha256" in shown.out
    said = terrella(
        "weights", "import", "precipitation", GOLDEN / "keras_bilstm.npz", "--name", "keras"
    )
    assert said.code == 0
    assert "keras" in terrella("weights", "list", "precipitation").out
    missing = terrella("weights", "import", "precipitation", "nowhere.npz", "--name", "x")
    assert missing.code == 1 and "nowhere.npz" in missing.line


def test_tasks_prints_the_card(terrella: Callable[..., Said]) -> None:
    out = terrella("tasks", "precipitation").out
    for word in ("10.3389/fspas.2022.858990", "--postprocess", "unsigned_time", "e4_0", "default"):
        assert word in out
    assert terrella("tasks", "nothing").code == 1


def test_an_unwritable_place_is_one_line(
    terrella: Callable[..., Said], sem2: Callable[..., Path], tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    said = terrella("run", "precipitation", sem2(), "--out", blocked / "out", "--no-plot")
    assert said.code == 1 and "cannot be written" in said.line
