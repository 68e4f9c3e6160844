"""From files to a catalogue: gaps, seams, flags, rules, and the real file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import terrella
from terrella import weights
from terrella.sources import poes
from terrella.tasks.precipitation import capannolo
from terrella.tasks.precipitation.decode import BITS, catalogue, decode, find, flag
from terrella.tasks.precipitation.prepare import open_files, orbits, prepare
from terrella.tasks.precipitation.simulate import World, simulate
from terrella.tasks.precipitation.task import Options, Recipe
from terrella.types import Record

GOLDEN = Path(__file__).parents[1] / "golden"
QUIET = World(rep=0.0, css=0.0, soft=0.0, spikes=0.0, gaps=0.0, protons=0.0)
LIVELY = World(rep=0.9, css=0.9, gaps=4.0)


def part(record: Record, keep: slice | np.ndarray) -> Record:
    return {k: v.isel(time=keep) for k, v in record.items()}


def run_files(
    paths: list[Path], weights_: str = "default", **chosen: object
) -> list[terrella.Product]:
    model = terrella.load("precipitation", weights_)
    options = model.options(**chosen)
    opened = open_files(paths, options)
    assert not opened.refused
    return [terrella.run(model, j.source, j.start, j.stop, options) for j in opened.jobs]


def logits(probability: np.ndarray) -> dict[str, np.ndarray]:
    return {"logits": np.log(np.maximum(probability, 1e-6)).astype(np.float32)}


def test_the_truth_given_as_probability_comes_back_as_events() -> None:
    record = simulate(seed=3, hours=6.0, world=World(gaps=0.0, rep=0.8, css=0.8))
    recipe, options = Recipe(window=7), Options()
    windows = prepare(record, recipe, options)
    truth = record["truth"].to_numpy()
    span = (windows.time[0] - np.timedelta64(1, "h"), windows.time[-1] + np.timedelta64(1, "h"))
    made = decode(
        logits(np.eye(3)[truth[windows.extra["middle"]]]), windows, record, span, recipe, options
    )
    assert made.events is not None and len(made.events) > 4
    for row in made.events.itertuples():
        inside = truth[row.start_index : row.stop_index + 1]
        assert (inside == {"REP": 1, "CSS": 2}[row.label]).mean() > 0.6
        assert row.peak_e4_0 == pytest.approx(
            float(record["e4_0"][row.start_index : row.stop_index + 1].max()), abs=0.01
        )
    covered = np.zeros(len(truth), bool)
    for row in made.events.itertuples():
        covered[row.start_index : row.stop_index + 1] = True
    assert covered[truth > 0].all()


def test_an_event_over_midnight_is_one_event(tmp_path: Path) -> None:
    record = simulate(seed=8, hours=8.0, start="2019-10-24T20:00:00", world=LIVELY)
    one = run_files([poes.write(record, tmp_path / "poes_n18_20191024_proc.nc")])[0].events
    assert one is not None and len(one) >= 3
    longest = one.assign(size=one["stop_index"] - one["start_index"]).nlargest(3, "size")
    for _, event in longest.iterrows():
        assert event["size"] >= 3
        cut = int(event["start_index"] + event["stop_index"] + 1) // 2
        (tmp_path / "split").mkdir(exist_ok=True)
        first = poes.write(part(record, slice(cut)), tmp_path / "split/poes_n18_20191024_proc.nc")
        second = poes.write(
            part(record, slice(cut, None)), tmp_path / "split/poes_n18_20191025_proc.nc"
        )
        days = run_files([second, first])
        both = pd.concat([d.events for d in days], ignore_index=True)
        told = ["start", "stop", "label", "L", "MLT", "peak_e4_0", "flags"]
        pd.testing.assert_frame_equal(both[told], one[told])
        np.testing.assert_allclose(both["probability"], one["probability"], atol=1e-4)
        assert sum(d.series.sizes["time"] for d in days) == len(record["L"])
        # The published rules take one file at a time.
        alone = run_files([second, first], postprocess="capannolo2023")
        assert np.isnan(alone[0].series["probability"][-4:, 0]).all()


def test_files_that_overlap_list_an_event_once(tmp_path: Path) -> None:
    record = simulate(seed=8, hours=8.0, start="2019-10-24T20:00:00", world=LIVELY)
    one = run_files([poes.write(record, tmp_path / "poes_n18_20191024_proc.nc")])[0].events
    assert one is not None
    middle = int(one["start_index"].iloc[len(one) // 2])
    (tmp_path / "two").mkdir()
    parts = [
        poes.write(part(record, keep), tmp_path / f"two/poes_n18_2019102{k}_proc.nc")
        for k, keep in ((4, slice(middle + 60)), (5, slice(middle - 60, None)))
    ]
    both = pd.concat([d.events for d in run_files(parts)], ignore_index=True)
    pd.testing.assert_frame_equal(both[["start", "stop", "label"]], one[["start", "stop", "label"]])


def test_seven_samples_hold_no_row_of_the_published_rules(record: Record, tmp_path: Path) -> None:
    weights.import_published("precipitation", [GOLDEN / "keras_bilstm.npz"], "keras")
    for size, fine in ((7, False), (8, True)):
        path = poes.write(part(record, slice(size)), tmp_path / "poes_n18_20191024_proc.nc")
        if fine:
            made = run_files([path], "keras", postprocess="capannolo2023")[0]
            assert (~np.isnan(made.series["probability"][:, 0])).sum() == 1
        else:
            with pytest.raises(terrella.Refused, match="a window needs 8"):
                run_files([path], "keras", postprocess="capannolo2023")


def test_no_window_of_ours_spans_a_gap(tmp_path: Path) -> None:
    record = simulate(seed=8, hours=3.0, world=QUIET)
    keep = np.ones(len(record["L"]), bool)
    keep[1000:1300] = False
    path = poes.write(part(record, keep), tmp_path / "poes_n18_20130101_proc.nc")
    ours = run_files([path])[0].series
    width = terrella.load("precipitation").recipe.window
    silent = np.isnan(ours["probability"][:, 0].to_numpy())
    assert silent[1000 - width // 2 : 1000 + width // 2].all()
    assert not silent[1000 - width // 2 - 1] and not silent[1000 + width // 2]
    gap = (ours["flags"].to_numpy() & BITS["gap"]) > 0
    np.testing.assert_array_equal(silent, gap)
    published = run_files([path], postprocess="capannolo2023")[0].series
    assert not np.isnan(published["probability"][900:1100, 0]).any()
    assert ((published["flags"].to_numpy() & BITS["gap"]) > 0)[1000]


def test_flags_say_what_they_mean() -> None:
    record = {k: v.copy(deep=True) for k, v in simulate(seed=8, hours=1.0, world=QUIET).items()}
    record["e4_0"][100] = -999.0
    record["e1_90"][110] = -999.0
    record["e4_0"][119], record["e4_0"][120] = 181.81818, 363.63635
    record["ifc"][130] = 1
    record["L"][140] = -1.0
    record["L"][141] = 5.0
    record["lat"][150], record["lon"][150] = -22.0, 325.0
    record["lat"][151], record["lon"][151] = 60.0, 100.0
    bits = flag(record, np.arange(len(record["L"])) == 160, 7)

    def on(name: str, at: int) -> bool:
        return bool(bits[at] & BITS[name])

    assert on("fill", 100) and on("proton_contamination", 100)
    assert on("fill", 110) and not on("proton_contamination", 110)
    assert on("noise_floor", 119) and not on("noise_floor", 120)
    assert on("calibration", 130) and not on("calibration", 131)
    assert on("l_outside", 140) and not on("l_outside", 141)
    assert on("saa", 150) and not on("saa", 151)
    assert on("gap", 160) and not on("gap", 161)


def test_flags_of_an_event_gather_its_samples() -> None:
    record = {k: v.copy(deep=True) for k, v in simulate(seed=8, hours=1.0, world=QUIET).items()}
    size = len(record["L"])
    record["e4_0"][:] = np.where(np.arange(size) == 205, 900.0, 0.0).astype("f4")
    record["L"][:] = 5.0
    record["lat"][:], record["lon"][:] = 60.0, 100.0
    record["ifc"][206] = 1
    probability = np.full((size, 3), [0.2, 0.7, 0.1], np.float32)
    bits = flag(record, np.zeros(size, bool), 7)
    found = {"REP": (np.array([200, 300]), np.array([210, 305])), "CSS": (np.zeros(0, int),) * 2}
    table = catalogue(found, probability, record, bits, 0)
    assert list(table["flags"]) == ["calibration", "noise_floor"]
    assert list(table["probability"]) == [0.7, 0.7]
    assert table["start"][0].endswith("Z") and table["peak_e4_0"][0] == 900.0


def test_classes_never_overlap_and_short_gaps_are_joined() -> None:
    record = simulate(seed=8, hours=0.2, world=QUIET)
    p = np.zeros((len(record["L"]), 3), np.float32)
    p[50:60, 1], p[55:70, 2] = 0.6, 0.8
    p[100:103, 1], p[105:108, 1], p[111:114, 1] = 0.9, 0.4, 0.9
    p[200:203, 1], p[205, 1], p[203:205, 2] = 0.9, 0.9, 0.9
    found = find(p, record, Options())
    rep, css = (list(zip(*found[k], strict=True)) for k in ("REP", "CSS"))
    assert css == [(55, 69), (203, 204)]
    # The middle run never reaches p_on, and the two around it lie 16 s apart.
    assert rep == [(50, 54), (100, 102), (111, 113), (200, 202), (205, 205)]


def test_orbits_are_counted_from_the_equator() -> None:
    record = simulate(seed=1, hours=10.0, world=QUIET)
    labels = orbits(record["L"]["time"].to_numpy(), record["lat"].to_numpy(), "n18")
    assert 6 <= len(np.unique(labels)) <= 8
    changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    lat = record["lat"].to_numpy()
    assert (lat[changes] >= 0).all() and (lat[changes - 1] < 0).all()


def test_a_simulated_day_looks_like_the_belts() -> None:
    record = simulate(seed=4)
    assert len(record["L"]) > 42_000
    truth, MLT, L = (record[k].to_numpy() for k in ("truth", "MLT", "L"))
    css = MLT[truth == 2]
    assert ((css >= 17.5) | (css <= 6.5)).all(), "CSS is confined to the night side"
    assert ((L[truth > 0] > 3) & (L[truth > 0] < 8.3)).all()
    assert 0.0005 < (truth > 0).mean() < 0.02, "events are rare"
    e4 = record["e4_0"].to_numpy()
    assert (e4 == -999).any() and not (record["e1_0"].to_numpy() < 0).any()
    counts = e4[e4 > 0] / np.float32(181.818)
    np.testing.assert_allclose(counts, np.round(counts), atol=0.01)
    ratio = (
        record["e4_0"].to_numpy()[truth == 1].mean() / record["e4_90"].to_numpy()[truth == 1].mean()
    )
    assert 0.3 < ratio < 1.2
    belt = (L > 4) & (L < 6) & (truth == 0)
    assert record["e4_0"].to_numpy()[belt].mean() < 0.35 * record["e4_90"].to_numpy()[belt].mean()


def test_too_few_samples_are_refused(sem2: Callable[..., Path], record: Record) -> None:
    import h5py

    def shorten(file: h5py.File) -> None:
        for name in list(file):
            values = file[name][:6]
            del file[name]
            file[name] = values

    model = terrella.load("precipitation")
    job = open_files([sem2(shorten)], model.options()).jobs[0]
    with pytest.raises(terrella.Refused, match=r"6 samples .* a window needs"):
        terrella.run(model, job.source, job.start, job.stop)


def test_a_damaged_neighbour_costs_the_seam_only(tmp_path: Path, record: Record) -> None:
    half = len(record["L"]) // 2
    good = poes.write(part(record, slice(half)), tmp_path / "poes_n18_20191024_proc.nc")
    bad = poes.write(part(record, slice(half, None)), tmp_path / "poes_n18_20191025_proc.nc")
    raw = bytearray(bad.read_bytes())
    import h5py

    with h5py.File(bad) as file:
        at = file["mep_ele_tel0_flux_e2"].id.get_chunk_info(0)
    raw[at.byte_offset : at.byte_offset + at.size] = b"\xff" * at.size
    bad.write_bytes(bytes(raw))
    model = terrella.load("precipitation")
    opened = open_files([good, bad], model.options())
    with pytest.warns(UserWarning, match="left out at the seam"):
        made = terrella.run(model, opened.jobs[0].source, opened.jobs[0].start, opened.jobs[0].stop)
    assert made.series.sizes["time"] == half
    with pytest.raises(terrella.Refused, match="damaged"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        terrella.run(model, opened.jobs[1].source, opened.jobs[1].start, opened.jobs[1].stop)


@pytest.mark.realdata
def test_the_real_file_gives_the_published_answer(realdata: Path) -> None:
    folder = realdata / "precipitation"
    weights.import_published("precipitation", [folder / "capannolo2022_weights.npz"], "published")
    file = folder / "poes_n18_20191024_proc.nc"
    made = run_files([file], "published", postprocess="capannolo2023")[0]
    with np.load(folder / "poes_n18_20191024_reference.npz", allow_pickle=False) as reference:
        wanted = reference["probability"]
    got = made.series["probability"].to_numpy()[3 : 3 + len(wanted)]
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert list(np.bincount(got.argmax(1))) == [22069, 24, 311]
    assert made.events is not None
    events = made.events.set_index("label")[["start_index", "stop_index"]]
    assert events.loc["REP"].tolist() == [18025, 18026]
    assert events.loc["CSS"].tolist() == [18018, 18023]
    L, winner = made.series["L"].to_numpy(), got.argmax(1)
    for label, raw, near in ((1, 10, 2), (2, 27, 1)):
        assert len(capannolo.class_runs(winner, label)[0]) == raw
        assert len(capannolo.events_2022(winner, label, L)[0]) >= near
        start, stop = capannolo.class_runs(winner, label)
        assert capannolo.in_belt(start, stop, capannolo.spline_filled(L)).sum() == near


@pytest.mark.realdata
def test_our_weights_find_the_real_event_too(realdata: Path) -> None:
    made = run_files([realdata / "precipitation/poes_n18_20191024_proc.nc"])[0].events
    assert made is not None
    clean = made[made["flags"] == ""]
    near = (clean["start_index"] <= 18026) & (clean["stop_index"] >= 18018)
    assert near.any()
    assert len(clean) <= 6, "a dozen orbits do not hold dozens of events"


def test_the_product_is_cf(sem2: Callable[..., Path], tmp_path: Path) -> None:
    from terrella import product as products

    made = run_files([sem2()])[0]
    path = products.write(made, tmp_path / "out", "scene", "precipitation")[0]
    with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=False) as back:
        assert back["probability"].dims == ("time", "class")
        assert list(back["class"].to_numpy()) == ["none", "REP", "CSS"]
        assert back["flags"].attrs["flag_meanings"].split() == list(BITS)
        assert len(back["flags"].attrs["flag_masks"]) == len(BITS)
        assert back["flags"].attrs["flag_masks"].dtype == back["flags"].dtype
        total = back["probability"].sum("class", skipna=False).to_numpy()
        np.testing.assert_allclose(total[~np.isnan(total)], 1.0, atol=1e-5)
