"""A catalogue is opened without being read, and says the same in every form."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tests.archive.conftest import HOURS
from tests.archive.days import EVERY_CROSSING, cut, flight
from tests.conftest import Said

import terrella as package
from terrella.archive.catalogue import parse
from terrella.cli import main
from terrella.types import Refused


@pytest.fixture(scope="module")
def store(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two satellites, seven files each."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(small, folder / "a")
    cut(flight(6, HOURS, seed=8, world=EVERY_CROSSING), folder / "b", HOURS, "m01")
    with pytest.raises(SystemExit):
        main(["run", "precipitation", str(folder / "**/*.nc"), "--workers", "1", "--no-series",
              "--out", str(folder / "store")])  # fmt: skip
    return folder / "store"


def test_conditions_choose_the_rows_that_they_say(store: Path) -> None:
    frame = package.open_catalogue(store).to_pandas()
    assert set(frame["satellite"]) == {"n18", "m01"} and set(frame["label"]) == {"REP", "CSS"}
    edge = float(frame["L"].iloc[3])
    cases = {
        "label": ("REP", frame["label"] == "REP"),
        "satellite": (["n18", "n19"], frame["satellite"] == "n18"),
        "L": ((edge, 6), (frame["L"] >= edge) & (frame["L"] < 6)),
        "MLT": ((None, edge), frame["MLT"] < edge),
        "time": (
            ("2013-01-01T03:00", "2013-01-01T07:00"),
            (frame["start"] >= "2013-01-01T03:00Z") & (frame["start"] < "2013-01-01T07:00Z"),
        ),
    }  # fmt: skip
    for name, (value, rows) in cases.items():
        found = package.open_catalogue(store, **{name: value})
        pd.testing.assert_frame_equal(found.to_pandas(), frame[rows].reset_index(drop=True))
        assert 0 < found.count() == int(rows.sum()) < len(frame), name
    both = package.open_catalogue(store, label="REP", L=(4, 6))
    rows = (frame["label"] == "REP") & frame["L"].between(4, 6, inclusive="left")
    assert both.count() == int(rows.sum())


def test_files_that_cannot_match_are_not_opened(store: Path, tmp_path: Path) -> None:
    spoilt = Path(shutil.copytree(store, tmp_path / "s"))
    for path in spoilt.rglob("*.parquet"):
        if "m01" in path.name or "20130101" in path.name:
            path.write_bytes(b"x" * path.stat().st_size)
    found = package.open_catalogue(spoilt, satellite="n18", time=("2013-01-01T04:30", None))
    assert found.count() > 0
    with pytest.raises(Refused, match="is damaged"):
        package.open_catalogue(spoilt).count()


def test_wrong_conditions_are_refused(store: Path, tmp_path: Path) -> None:
    for where, words in (
        ({"lable": "REP"}, "did you mean 'label'"),
        ({"L": "high"}, "is not a number"),
        ({"label": ("A", "B")}, "a range is"),
        ({"time": ("yesterday", None)}, "is not a time"),
    ):
        with pytest.raises(Refused, match=words):
            package.open_catalogue(store, **where)
    with pytest.raises(Refused, match="is no store"):
        package.open_catalogue(tmp_path)
    assert parse(["label=REP,CSS", "L=4:6", "time=2013-01-01T00:00/", "MLT=:3"]) == {
        "label": ["REP", "CSS"], "L": ("4", "6"), "time": ("2013-01-01T00:00", None),
        "MLT": (None, "3"),
    }  # fmt: skip
    with pytest.raises(Refused, match="write it as"):
        parse(["label"])


def test_every_form_holds_the_same(
    store: Path, terrella: Callable[..., Said], tmp_path: Path
) -> None:
    from astropy.io.votable import parse_single_table

    frame = package.open_catalogue(store, label="REP").to_pandas()
    for suffix in ("csv", "json", "hapi", "vot"):
        out = tmp_path / f"c.{suffix}"
        said = terrella("catalogue", store, "--where", "label=REP", "--out", out)
        assert said.code == 0, said.err
        assert said.out.strip() == str(out)
    csv = pd.read_csv(tmp_path / "c.csv", keep_default_na=False)
    rows = json.loads((tmp_path / "c.json").read_text())
    assert list(csv) == list(rows[0]) == list(frame)
    assert csv["L"].tolist() == [r["L"] for r in rows] == frame["L"].tolist()
    assert csv["start"].tolist() == [r["start"] for r in rows]
    assert pd.to_datetime(csv["start"]).tolist() == frame["start"].tolist()
    table = parse_single_table(tmp_path / "c.vot").to_table()
    assert table["L"].tolist() == frame["L"].tolist()
    assert [str(v) for v in table["start"]] == csv["start"].tolist()
    text = (tmp_path / "c.hapi").read_text().splitlines()
    header = json.loads("".join(x[1:] for x in text if x.startswith("#")))
    body = [x.split(",") for x in text if not x.startswith("#")]
    names = [p["name"] for p in header["parameters"]]
    assert header["status"]["code"] == 1200 and header["parameters"][0]["type"] == "isotime"
    assert all(len(row) == len(names) for row in body)
    starts = [row[0] for row in body]
    assert starts == sorted(csv["start"])
    assert header["startDate"] == starts[0] and all(len(s) == 24 for s in starts)
    widest = {p["name"]: p["length"] for p in header["parameters"] if "length" in p}
    assert widest["label"] == 3
    assert "ends in" not in terrella("catalogue", store, "--out", tmp_path / "c.xls").out
    assert f"{len(frame)} events in 14 units" in terrella(
        "catalogue", store, "--where", "label=REP"
    ).out  # fmt: skip


def test_an_empty_choice_is_an_empty_file(
    store: Path, terrella: Callable[..., Said], tmp_path: Path
) -> None:
    for suffix in ("csv", "json", "hapi", "vot"):
        said = terrella("catalogue", store, "--where", "L=99", "--out", tmp_path / f"c.{suffix}")
        assert said.code == 0, said.err
    assert (tmp_path / "c.csv").read_text().startswith("start,stop")
    assert json.loads((tmp_path / "c.json").read_text()) == []


def test_other_readers_see_the_folders_as_columns(store: Path) -> None:
    frame = pd.read_parquet(store / "events")
    assert {"satellite", "year", "label"} <= set(frame)
    assert len(frame) == package.open_catalogue(store).count()


def test_importing_terrella_imports_no_arrow() -> None:
    code = (
        "import sys, terrella; terrella.open_catalogue\n"
        "from terrella import cli\n"
        "assert not {'pyarrow', 'distributed', 'dask', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_missing_library_is_named(
    store: Path, terrella: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'terrella[scale]'" in terrella("catalogue", store).line
