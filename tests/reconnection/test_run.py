"""The command as a user runs it, the product, and every kind of bad input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

import terrella
from terrella.cli import main
from terrella.sources.mms_write import write
from terrella.tasks.reconnection.network import Published
from terrella.tasks.reconnection.regions import agreement, smoothed
from terrella.tasks.reconnection.simulate import REGIONS, region, simulate
from terrella.types import Refused


def terrella_command(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(w) for w in words])
    return int(left.value.code or 0)


def run(*words: object) -> int:
    return terrella_command("run", "reconnection", *words)


@pytest.fixture
def published(tmp_path: Path) -> str:
    torch.manual_seed(0)
    save_file(Published().state_dict(), tmp_path / "random.safetensors")
    path = tmp_path / "random.safetensors"
    assert terrella_command("weights", "import", "reconnection", path, "--name", "random") == 0
    return "random"


def test_a_run_with_two_probes(scene: Path, tmp_path: Path, capsys: Any) -> None:
    assert run(scene, "--out", tmp_path, "--probe", "1,2") == 0
    stem = tmp_path / "mms12_20170711_223300.reconnection"
    data = xr.open_dataset(f"{stem}.nc")
    assert data["probability"].dims == ("time", "class") and list(data["class"].values) == list(
        REGIONS
    )
    assert set(data["probe"].values) == {1, 2}
    names = (
        "j_gsm e_prime_gsm je_prime je_electron_par te_par pe_gse qe_gse spectrum_omni "
        "spectrum_anti ti_perp_ion pi_gse_ion qi_gse_ion spectrum_omni_ion lobe_field"
    )
    for name in names.split():
        assert data[name].attrs["units"] and np.isfinite(data[name].values).mean() > 0.9, name
    named = data["region"].values >= 0
    np.testing.assert_allclose(data["probability"].sum("class").values[named], 1, atol=1e-5)
    assert (data["b0_error"].values > 0).all() and float(data["spread"].max()) > 0
    # two probes 20 km apart see the same region nearly always
    assert float(data["agreement"].mean()) > 0.8
    # energy conversion of a region is the mean over its samples
    k = int(np.bincount(data["region"].values[(data["probe"] == 2).values & named]).argmax())
    inside = (data["probe"].values == 2) & (data["region"].values == k)
    assert float(data["region_je_prime"][1, k]) == pytest.approx(
        float(np.nanmean(data["je_prime"].values[inside])), rel=1e-3
    )
    table = pd.read_csv(f"{stem}.csv")
    assert {"region", "label", "start", "stop", "duration_s", "confidence", "agreement"} <= set(
        table
    )
    assert table["confidence"].between(0, 1).all()
    for probe, rows in table.groupby("probe"):
        start, stop = pd.to_datetime(rows["start"]), pd.to_datetime(rows["stop"])
        assert (start.to_numpy()[1:] >= stop.to_numpy()[:-1] - np.timedelta64(2, "ms")).all(), probe
    assert Path(f"{stem}.mms1.png").stat().st_size > 50_000
    assert capsys.readouterr().err == ""


def test_labels_are_right_on_a_held_out_scene(tmp_path: Path) -> None:
    record = simulate(seed=950_001, hours=60 / 3600, field_rate=512.0)
    write(record, tmp_path / "in")
    truth = record["mms1_truth"]
    assert run(tmp_path / "in", "--out", tmp_path, "--no-plot", "--b0", truth.attrs["b0"],
               "--n0", truth.attrs["n0"]) == 0  # fmt: skip
    data = xr.open_dataset(next(tmp_path.glob("*.nc")))
    answered = data["region"].values >= 0
    assert answered.mean() > 0.7
    assert (data["region"].values == truth.values)[answered].mean() > 0.8


def test_currents_are_those_of_the_scene(tmp_path: Path) -> None:
    """J from the moments is the curl of B that the scene was made from, within its noise."""
    from terrella.tasks.reconnection import physics
    from terrella.tasks.reconnection.derive import cross
    from terrella.tasks.reconnection.task import Options

    record = simulate(seed=12, hours=60 / 3600, field_rate=512.0)
    got = cross(record, "1", Options())
    # J.E' + the ideal part is J.E: v x B does work on the current only through J x B
    j, ve, b = (got.values[k][0] for k in ("j_gsm", "ve_gsm", "b_gsm"))
    lorentz = 1e-3 * np.einsum("ti,ti->t", np.cross(j, b), ve)
    je, prime = got.values["je"][0], got.values["je_prime"][0]
    good = np.isfinite(je)
    assert np.corrcoef((je - prime)[good], lorentz[good])[0, 1] > 0.99
    parts = got.values["je_prime_ion"][0] + got.values["je_prime_electron"][0]
    np.testing.assert_allclose(parts[good], prime[good], atol=1e-9)
    across = got.values["je_prime_par"][0] + got.values["je_prime_perp"][0]
    np.testing.assert_allclose(across[good], prime[good], atol=1e-9)
    assert physics.unit(b)[good].shape[1] == 3


def test_legacy_files_as_the_original_writes_them(
    scene: Path, tmp_path: Path, published: str
) -> None:
    words = ("--weights", published, "--mode", "published", "--legacy-csv", "--no-plot")
    given = ("--probe", "2", "--b0", 15, "--n0", 0.3)
    assert run(scene, "--out", tmp_path / "o", *words, *given) == 0
    out = tmp_path / "o"
    labels, probs, nn = (pd.read_csv(out / f"mms2_{k}.csv") for k in ("labels", "probs", "nndata"))
    assert list(labels) == ["Predicted"] and list(probs) == ["Predicted", "Confidence"]
    assert list(nn) == ["time", "Bx", "By", "Bz", "Ex", "Ey", "Ez", "ni", "ne", "vix", "viy", "viz",
                        "vex", "vey", "vez"]  # fmt: skip
    assert len(labels) == len(probs) == len(nn)
    assert (
        labels["Predicted"].dropna().between(0, 5).all()
        and labels["Predicted"].notna().mean() > 0.95
    )
    # the normalised inputs go round: the same labels come from the nndata file
    again = tmp_path / "again"
    assert run(out / "mms2_nndata.csv", "--out", again, *words) == 0
    back = pd.read_csv(again / "mms2_probs.csv")
    both = probs["Confidence"].notna()
    np.testing.assert_allclose(back["Confidence"][both], probs["Confidence"][both], atol=2e-5)


def test_an_event_of_the_table(tmp_path: Path, scene: Path, capsys: Any) -> None:
    # Event E is 2017-07-11T22:33:30 to 22:34:15: a minute from 22:33:00 meets it, half does not.
    record = simulate(seed=4, hours=60 / 3600, field_rate=256.0)
    write(record, tmp_path / "in")
    assert run(tmp_path / "in", "--out", tmp_path / "o", "--event", "E", "--no-plot") == 0
    data = xr.open_dataset(next((tmp_path / "o").glob("mms1_eventE.*.nc")))
    assert float(data["b0"][0]) == pytest.approx(7.805346) and "event E" in data.attrs["scale"]
    assert data["time"].values[0] >= np.datetime64("2017-07-11T22:33:30")
    assert float(data["b0_seen"][0]) > 0
    capsys.readouterr()
    assert run(scene, "--out", tmp_path / "p", "--event", "A,E", "--no-plot") == 1
    said = capsys.readouterr().err
    assert "event A" in said and "2017-05-28T03:58:30" in said and "Traceback" not in said


def test_timing_moves_the_electrons(scene: Path, tmp_path: Path) -> None:
    for timing in ("centre", "published"):
        words = ("--timing", timing, "--probe", "1", "--no-plot", "--b0", 15, "--n0", 0.3)
        assert run(scene, "--out", tmp_path / timing, *words) == 0
    a, b = (xr.open_dataset(next((tmp_path / t).glob("*.nc"))) for t in ("centre", "published"))
    assert b["time"].values[0] - a["time"].values[0] == np.timedelta64(60, "ms")
    assert b["time_ion"].values[0] == a["time_ion"].values[0]


def only(capsys: Any) -> str:
    said = capsys.readouterr().err.strip()
    assert said and "Traceback" not in said and len(said.splitlines()) == 1, said
    return str(said)


@pytest.fixture
def mine(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v.copy(deep=True) for k, v in record.items() if k.startswith("mms1")}


def test_one_instrument_missing(scene: Path, tmp_path: Path, capsys: Any) -> None:
    files = [p for p in scene.glob("mms1*.cdf") if "des-moms" not in p.name]
    assert run(*files, "--out", tmp_path) == 1
    assert "MMS1 DES is missing: add a mms1_fpi_brst_l2_des-moms_*.cdf file" in only(capsys)


def test_no_overlap_in_time(mine: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    for name in ("mms1_b",):
        mine[name] = mine[name].assign_coords(time=mine[name]["time"] + np.timedelta64(1, "h"))
    write(mine, tmp_path / "in")
    assert run(tmp_path / "in", "--out", tmp_path) == 1
    assert "MMS1 FGM" in (said := only(capsys)) and "no data in" in said


def test_b0_zero_and_n0_negative(scene: Path, tmp_path: Path, capsys: Any) -> None:
    assert run(scene, "--out", tmp_path, "--probe", "1", "--b0", "0") == 1
    assert "terrella: --b0 0: must be a positive number of nT" in only(capsys)
    assert run(scene, "--out", tmp_path, "--probe", "1", "--n0", "-0.2") == 1
    assert "--n0 -0.2: must be a positive number of cm-3" in only(capsys)


def test_all_of_e_is_fill(mine: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    mine["mms1_e"].values[:] = np.nan
    write(mine, tmp_path / "in")
    assert run(tmp_path / "in", "--out", tmp_path) == 1
    assert "MMS1 EDP: the burst electric field is fill throughout" in only(capsys)


def test_probes_mixed_up(scene: Path, tmp_path: Path, capsys: Any) -> None:
    files = [p for p in scene.glob("mms1*.cdf") if "fgm" not in p.name]
    assert run(*files, *scene.glob("mms2_fgm*"), "--out", tmp_path, "--probe", "1") == 1
    assert "MMS1 FGM is missing (the one given is of MMS2)" in only(capsys)
    assert run(scene, "--out", tmp_path, "--probe", "3") == 1
    assert "MMS3: no data among the inputs; they hold MMS1, MMS2" in only(capsys)
    assert run(scene, "--out", tmp_path, "--probe", "5") == 1
    assert "MMS has probes 1, 2, 3 and 4, not 5" in only(capsys)
    renamed = tmp_path / next(scene.glob("mms2_fgm*")).name.replace("mms2", "mms1")
    shutil.copy(next(scene.glob("mms2_fgm*")), renamed)
    assert run(renamed, "--out", tmp_path) == 1
    assert "is named as MMS1 but holds data of MMS2" in only(capsys)


def test_no_burst_data(scene: Path, tmp_path: Path, capsys: Any) -> None:
    late = ("--start", "2017-07-11T23:00", "--stop", "2017-07-11T23:01", "--probe", "1")
    assert run(scene, "--out", tmp_path, *late) == 1
    assert "nothing between 2017-07-11T23:00" in only(capsys)
    fast = next(scene.glob("mms1_edp_fast*"))
    assert run(fast, "--out", tmp_path) == 1
    assert "MMS1" in only(capsys)


def test_mixed_folder_goes_on_past_a_bad_file(scene: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(scene, tmp_path / "in")
    (tmp_path / "in" / "mms1_fgm_brst_l2_20170711223300_v9.0.0.cdf").write_bytes(b"damaged")
    assert run(tmp_path / "in", "--out", tmp_path / "o", "--probe", "1", "--no-plot", "--b0", 15,
               "--n0", 0.3) == 1  # fmt: skip
    assert "cannot be read as CDF" in only(capsys)
    assert list((tmp_path / "o").glob("*.nc"))


def test_python_use_without_files(record: dict[str, Any]) -> None:
    from terrella.sources.mms_table import Tables

    model = terrella.load("reconnection")
    source = Tables({k: v for k, v in record.items() if k.startswith("mms1")})
    lo, hi = np.datetime64("2017-07-11T22:33:05", "ns"), np.datetime64("2017-07-11T22:33:15", "ns")
    made = terrella.run(model, source, lo, hi, model.options(b0=15.0, n0=0.3))
    time = made.series["time"].values
    assert time[0] - lo < np.timedelta64(31, "ms") and hi - time[-1] < np.timedelta64(31, "ms")
    assert (made.series["flags"].values & 2 == 0).all(), "the reach gives every sample its context"
    with pytest.raises(Refused):
        terrella.run(model, source, hi + np.timedelta64(1, "h"), hi + np.timedelta64(2, "h"))


def test_smoothing_and_agreement() -> None:
    p = np.tile([0.9, 0.1], (9, 1))
    p[4] = [0.1, 0.9]
    known = np.ones(9, bool)
    assert smoothed(p, known, np.zeros(9, int), 3).tolist() == [0] * 9
    assert smoothed(p, known, np.zeros(9, int), 1)[4] == 1
    known[2] = False
    assert smoothed(p, known, np.zeros(9, int), 3)[2] == -1
    second = np.timedelta64(1, "s")
    time = np.datetime64("2017-01-01", "ns") + np.arange(3) * second
    time = np.concatenate([time, time + np.timedelta64(10, "ms"), time + np.timedelta64(50, "ms")])
    probe = np.repeat([1, 2, 3], 3)
    got = agreement(time, probe, np.array([0, 1, -1, 0, 2, 2, 0, 0, 0]))
    # probe 3 is 40 ms and more away from both: nobody's neighbour
    np.testing.assert_array_equal(got, [1, 0, np.nan, 1, 0, np.nan, np.nan, np.nan, np.nan])


def test_the_truth_is_geometry() -> None:
    from terrella.tasks.reconnection.simulate import draw_site

    site = draw_site(np.random.default_rng(0), 60.0)
    far, steep = 10.0, 10.0 * site.slope
    x = np.array([far, far, far, -far, far, far])
    z = np.array([steep + 2, -steep - 2, 0, 0, steep, -steep])
    assert region(site, x, z).tolist() == [0, 1, 2, 3, 4, 5]


def test_options_that_cannot_be(scene: Path, tmp_path: Path, capsys: Any, published: str) -> None:
    capsys.readouterr()
    assert run(scene, "--out", tmp_path / "o", "--mode", "published") == 1
    assert "--mode published: is for the published network only" in only(capsys)
    assert run(scene, "--out", tmp_path / "o", "--weights", published, "--context", "0") == 1
    assert "--context 0: must be 1 sample or more" in only(capsys)
    assert run(scene, "--out", tmp_path / "o", "--probe", "1", "--b0-error", "-1") == 1
    assert "--b0-error -1: is a share" in only(capsys)
    assert run(scene, "--out", tmp_path / "o", "--probe", "1", "--draws", "0") == 1
    assert "--draws 0: must be 1 or more" in only(capsys)
    words = ("--weights", published, "--mode", "published", "--context", "20")
    assert run(scene, "--out", tmp_path / "o", "--probe", "1", *words) == 1
    assert "--context 20: --mode published resets the state every 32 rows" in only(capsys)


def test_moments_need_no_network_and_no_other_instrument(scene: Path, tmp_path: Path) -> None:
    files = scene.glob("mms2*dis-moms*")
    assert terrella_command("reconnection", "moments", *files, "--out", tmp_path) == 0
    data = xr.open_dataset(next(tmp_path.glob("*.moments.nc")))
    assert data["mms2_pi_corrected"].attrs["units"] == "nPa"
    n = data["mms2_ni"].values - data["mms2_ni_bg"].values
    np.testing.assert_allclose(data["mms2_ni_corrected"].values, n, rtol=1e-5)


def test_normalised_inputs_take_no_scale_and_no_date(tmp_path: Path, capsys: Any) -> None:
    features = np.random.default_rng(0).normal(size=(90, 14)).astype(np.float32)
    np.savez(tmp_path / "f.npz", features=features)
    words = (tmp_path / "f.npz", "--out", tmp_path / "o", "--no-plot")
    assert run(*words, "--b0", "0", "--n0", "-1") == 1
    assert "--b0 0: must be a positive number" in only(capsys)
    assert run(*words, "--n0", "-1") == 1
    assert "--n0 -1: must be a positive number" in only(capsys)
    assert run(*words, "--b0", "15", "--n0", "0.3") == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2, said
    assert "normalised already; --b0, --n0 has no effect" in said[0]
    assert "f.npz has no times; its rows are dated from 2000-01-01" in said[1]
    data = xr.open_dataset(next((tmp_path / "o").glob("*.nc")))
    assert data.attrs["time_assumed"].startswith("MMS1: f.npz has no times")


def test_event_a_of_one_probe(mine: dict[str, Any], tmp_path: Path) -> None:
    """The interval of event A, 2017-05-28T03:58:30 to 03:59:15, out of data around it."""
    moved = np.datetime64("2017-05-28T03:58:20", "ns") - np.datetime64("2017-07-11T22:33", "ns")
    shifted = {k: v.assign_coords(time=v["time"].values + moved) for k, v in mine.items()}
    write(shifted, tmp_path / "in")
    words = ("--event", "A", "--probe", "1", "--no-plot")
    assert run(tmp_path / "in", "--out", tmp_path / "o", *words) == 0
    data = xr.open_dataset(tmp_path / "o" / "mms1_eventA.reconnection.nc")
    assert float(data["b0"][0]) == pytest.approx(21.27865148)
    assert float(data["n0"][0]) == pytest.approx(0.13838144)
    first = data["time"].values[0] - np.datetime64("2017-05-28T03:58:30")
    assert np.timedelta64(0) <= first < np.timedelta64(31, "ms")


GROUND = 1 << 7
GIVEN = ("--no-plot", "--b0", 15, "--n0", 0.3)


def test_a_background_of_fill_is_unknown_in_both_commands(
    mine: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    mine["mms1_ni_bg"].values[40:60] = np.nan
    mine["mms1_pi_bg"].values[80] = np.nan
    write(mine, tmp_path / "in")
    assert run(tmp_path / "in", "--out", tmp_path / "o", *GIVEN) == 0
    assert terrella_command("reconnection", "moments", tmp_path / "in", "--out", tmp_path) == 0
    assert "warning" not in capsys.readouterr().err
    data = xr.open_dataset(next((tmp_path / "o").glob("*.nc")))
    other = xr.open_dataset(next(tmp_path.glob("*.moments.nc")))
    bad = np.isin(np.arange(len(data["time_ion"])), [*range(40, 60), 80])
    for name, theirs in (("ni_ion", "ni"), ("vi_gse_ion", "vi"), ("pi_gse_ion", "pi")):
        mine_, there = data[name].values, other[f"mms1_{theirs}_corrected"].values
        np.testing.assert_allclose(mine_, there[: len(mine_)], rtol=1e-5, err_msg=name)
        missing = np.isnan(mine_).reshape(len(mine_), -1)
        assert (missing.all(1) == bad).all() and (missing.any(1) == bad).all(), name
    assert "background removed" in data["ni"].attrs["long_name"]
    assert data.attrs["ion_background"].endswith("unknown and left NaN in 21 ion samples")
    near = np.abs(data["time"].values - data["time_ion"].values[50]) < np.timedelta64(1, "s")
    assert (data["flags"].values[near] & GROUND > 0).all()
    assert 0.05 < (data["flags"].values & GROUND > 0).mean() < 0.2
    assert "ion_background_unknown" in data["flags"].attrs["flag_meanings"]


@pytest.mark.parametrize("how", ["absent", "fill"])
def test_without_a_background_both_commands_say_so(
    mine: dict[str, Any], tmp_path: Path, capsys: Any, how: str
) -> None:
    if how == "absent":
        del mine["mms1_ni_bg"]
    else:
        mine["mms1_ni_bg"].values[:] = np.nan
    write(mine, tmp_path / "in")
    assert run(tmp_path / "in", "--out", tmp_path / "o", *GIVEN) == 0
    assert "MMS1 DIS: the ion background (density and pressure) is absent" in only(capsys)
    assert terrella_command("reconnection", "moments", tmp_path / "in", "--out", tmp_path) == 0
    assert "MMS1 DIS: the ion background (density and pressure) is absent" in only(capsys)
    data = xr.open_dataset(next((tmp_path / "o").glob("*.nc")))
    assert "mms1_ni_corrected" not in xr.open_dataset(next(tmp_path.glob("*.moments.nc")))
    np.testing.assert_allclose(data["ni_ion"], mine["mms1_ni"].values[: len(data["ni_ion"])])
    for name in ("ni", "vi_gsm", "ni_ion", "vi_gse_ion", "pi_gse_ion", "ti_par_ion"):
        assert "background not given and not removed" in data[name].attrs["long_name"]
    assert (data["flags"].values & GROUND > 0).mean() > 0.99


@pytest.mark.realdata
def test_moments_of_the_real_file(realdata: Path, tmp_path: Path) -> None:
    path = next((realdata / "reconnection").glob("mms1_fpi_fast_l2_dis-moms_*.cdf"))
    assert (
        terrella_command("reconnection", "moments", path, "--rate", "fast", "--out", tmp_path) == 0
    )
    data = xr.open_dataset(next(tmp_path.glob("*.moments.nc")))
    assert data.sizes["time_mms1_dis"] == 1600
    first = np.datetime64("2015-10-17T12:00:03.668054")  # 12:00:01.418054 and half of 4.5 s
    assert data["time_mms1_dis"].values[0] == first
    assert (data["mms1_ni_corrected"] < data["mms1_ni"]).all()


@pytest.mark.realdata
def test_the_published_run_through_the_command(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "reconnection"
    words = ("--weights", "waters2025", "--mode", "published", "--no-plot", "--out", tmp_path)
    name = ("--name", "waters2025")
    weights = folder / "waters2025.safetensors"
    assert terrella_command("weights", "import", "reconnection", weights, *name) == 0
    assert run(folder / "waters2025_reference.npz", *words) == 0
    data = xr.open_dataset(next(tmp_path.glob("*.nc")))
    wanted = np.load(folder / "waters2025_reference.npz")["probability"]
    assert np.abs(data["probability"].values - wanted).max() < 1e-6
