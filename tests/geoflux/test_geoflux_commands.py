from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.geoflux_scenes import hours

from terrella.cli import main
from terrella.tasks.geoflux.simulate import export, simulate


def terrella(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(simulate(2, 24 * 420.0), tmp_path_factory.mktemp("scene") / "scene.nc")[0]


def test_drivers(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert terrella("geoflux", "drivers", scene, "--offsets", 4, "--draws", 200,
                    "--out", tmp_path) == 0  # fmt: skip
    table = pd.read_csv(tmp_path / "drivers.csv")
    assert {"driver", "offset_days", "rho", "lo", "hi", "p", "n"} == set(table)
    speed = table[table["driver"] == "V"].set_index("offset_days")["rho"]
    assert speed.idxmax() in (2, 3), "fed by the speed of 30 h ago, and slow to follow"
    assert "history implied" in capsys.readouterr().out
    assert (tmp_path / "drivers.png").stat().st_size > 5000


def test_calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    days = np.repeat(rng.normal(2.5, 0.8, 500), 24) + rng.normal(0, 0.05, 12000)
    stamp = [np.datetime_as_string(t, "s") for t in hours(12000)]
    layout = tmp_path / "two.toml"
    layout.write_text("")
    for folder, shift in (("g13", 0.1), ("g15", 0.0)):
        rows = [f"{t},{1e4},{10 ** (v + shift):.5g}" for t, v in zip(stamp, days, strict=True)]
        if folder == "g13":
            body = ["time,e_gt_0p8MeV,e_gt_2MeV", *rows]
            path = tmp_path / "data" / "g13.csv"
        else:
            body = [r + ",90,20,15,91,10" for r in rows]
            path = tmp_path / "data" / "files_flux_and_others" / "a.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(body) + "\n")
    out = tmp_path / "out"
    assert terrella("geoflux", "calibrate", tmp_path / "data", "--pair", "goes13:goes15",
                    "--until", "2017-01-01", "--out", out) == 0  # fmt: skip
    table = pd.read_csv(out / "calibration.csv")
    assert table["fitted"].tolist() == [True, False]
    assert table["median_log10_ratio"].abs().max() < 0.02
    assert table["median_log10_ratio_before"].min() > 0.08
    told = capsys.readouterr().out
    assert "not fitted" in told and "dex a year" in told
    assert table["drift_dex_a_year"].abs().max() < 0.01
    assert (out / "goes13_goes15.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["geoflux", "calibrate", "nosuch", "--pair", "a"], "write it as goes13:goes15"),
        (["geoflux", "calibrate", "nosuch", "--pair", "goes13"], "--pair 'goes13'"),
        (["geoflux", "calibrate", "x", "--pair", "a:b", "--kind", "round"], "--kind"),
        (["geoflux", "drivers", "nosuch"], "no such file"),
        (["evaluate", "geoflux", "nosuch"], "no such file"),
    ],
)
def test_refusals_are_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert terrella(*arguments) == 1
    said = capsys.readouterr().err.strip()
    assert says in said and "\n" not in said


def test_run_from_the_command_line(scene: Path, tmp_path: Path) -> None:
    assert terrella("run", "geoflux", scene, "--issue", "2009-01-10:2009-02-10",
                    "--out", tmp_path) == 0  # fmt: skip
    table = pd.read_csv(tmp_path / "forecast_2009-01-10_2009-02-10.geoflux.csv")
    assert len(table) == 32 * 3
    assert (tmp_path / "forecast_2009-01-10_2009-02-10.geoflux.backtest.png").is_file()
