"""The one contract that every task folder must pass."""

from __future__ import annotations

import dataclasses
import pickle
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import terrella
from terrella import files, learning, novelty, registry, results, weights
from terrella import product as products
from terrella.archive.commit import arrow
from terrella.archive.units import units_of
from terrella.learn import certificate
from terrella.learn import config as configs
from terrella.learn.split import blind
from terrella.predict import predict
from terrella.task import Judging, Model, Task
from terrella.types import Features, NoData, Opening, Record, Refused, Windows

TASKS = registry.names()


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    return registry.get(request.param)


@pytest.fixture(scope="module")
def model(task: Task) -> Model:
    return terrella.load(task.name)


@pytest.fixture(scope="module")
def scene(task: Task, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The demo's scene, in the task's native format."""
    folder = tmp_path_factory.mktemp(task.name)
    return list(task.export(task.simulate(**task.demo), folder / "scene.nc"))


@pytest.fixture(scope="module")
def opened(task: Task, model: Model, scene: list[Path]) -> Opening:
    found: Opening = task.open(scene, model.options())
    assert found.jobs
    assert not found.refused
    return found


@pytest.fixture(scope="module")
def record(task: Task, model: Model, opened: Opening) -> Record:
    job = opened.jobs[0]
    before, after = task.reach(model.recipe, model.options())
    found: Record = job.source.fetch(task.inputs, job.start - before, job.stop + after)
    return found


@pytest.fixture(scope="module")
def windows(task: Task, model: Model, record: Record) -> Windows:
    made: Windows = task.prepare(record, model.recipe, model.options())
    return made


def test_task_is_complete(task: Task) -> None:
    folder = registry.FOLDER / task.name
    assert folder.name == task.name
    assert task.summary and len(task.summary) < 100
    card = registry.card(task.name)
    assert {"title", "method", "doi", "input", "product", "traps"} <= set(card)
    assert tomllib.loads((folder / "train.toml").read_text())
    for kind in (task.recipe, task.options, task.evaluation):
        assert dataclasses.is_dataclass(kind)
        assert kind() == kind(), "every field has a default, and values compare"
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(f.metadata.get("help") for f in dataclasses.fields(task.options))
    kinds = {b.kind for b in task.baselines.values()}
    assert {"trivial", "metadata", "classical"} <= kinds, "a network is never judged alone"
    assert task.primary and set(task.primary) <= set(task.metrics)
    assert task.evaluation(**task.quick) != task.evaluation(), "a bench is shorter"


def test_record_carries_units(task: Task, record: Record) -> None:
    required = {v.name: v for v in task.inputs if v.required}
    assert required.keys() <= record.keys()
    for name, variable in required.items():
        assert record[name].attrs["units"] == variable.units
        time = record[name]["time"].to_numpy()
        assert (np.diff(time) > np.timedelta64(0)).all()


def test_windows_agree(windows: Windows) -> None:
    rows = len(windows)
    assert rows > 0
    assert len(windows.time) == len(windows.valid) == rows
    assert windows.valid.any()
    for labels in windows.groups.values():
        assert len(labels) == rows


def test_simulation_repeats_by_seed(task: Task) -> None:
    short = {**task.demo, "hours": task.demo.get("hours", 24.0)}
    first, again = task.simulate(**short), task.simulate(**short)
    other = task.simulate(**{**short, "seed": 987})
    for name, values in first.items():
        xr.testing.assert_identical(values, again[name])
    assert any(
        other[k].shape != v.shape or not np.array_equal(other[k].to_numpy(), v.to_numpy())
        for k, v in first.items()
        if k != "time"
    )


def test_network_runs_and_learns(task: Task, model: Model, windows: Windows) -> None:
    torch.manual_seed(0)
    network = task.network(model.recipe)
    feed = windows
    if feed.y is None:
        pytest.skip("the demo's scene has no truth in its files")
    rows = np.flatnonzero(feed.valid)[:8]
    x = {k: v[rows] for k, v in feed.x.items()}
    y = {k: v[rows] for k, v in feed.y.items()}
    network.train()
    value = task.loss(network(**x), y, torch.ones(len(rows)))
    assert torch.isfinite(value)
    value.backward()
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all()
        for p in network.parameters()
        if p.requires_grad
    )
    assert any(float(p.grad.abs().sum()) > 0 for p in network.parameters() if p.grad is not None)


def test_weights_survive_a_round_trip(
    task: Task, model: Model, windows: Windows, tmp_path: Path
) -> None:
    card = dataclasses.replace(model.card, name="again", scores=())
    path = weights.save(model.network, card, model.recipe, tmp_path)
    again = weights.load(task.name, path)
    forward = task.predict or predict
    before, after = forward(model.network, windows), forward(again.network, windows)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert again.recipe == model.recipe


def test_a_run_makes_a_whole_product(
    task: Task, model: Model, opened: Opening, tmp_path: Path
) -> None:
    job = opened.jobs[0]
    made = terrella.run(model, job.source, job.start, job.stop)
    again = terrella.run(model, job.source, job.start, job.stop)
    xr.testing.assert_identical(made.series, again.series)
    written = products.write(made, tmp_path, "scene", task.name)
    with xr.open_dataset(written[0], engine="h5netcdf", decode_timedelta=False) as back:
        assert back.sizes == made.series.sizes
        for name, variable in made.series.data_vars.items():
            np.testing.assert_array_equal(back[name].to_numpy(), variable.to_numpy())
            if variable.dtype.kind == "f":
                assert "units" in back[name].attrs, f"{name} says no units"
    if made.events is not None:
        table = pd.read_csv(written[1])
        assert list(table.columns) == list(made.events.columns)
        assert len(table) == len(made.events)
    assert not list(tmp_path.glob(".*")), "scratch files were left behind"


def test_a_job_can_be_sent_to_a_worker(task: Task, model: Model, opened: Opening) -> None:
    reach = task.reach(model.recipe, model.options())
    for job, unit in list(zip(opened.jobs, units_of(opened.jobs, reach), strict=True))[-2:]:
        sent = pickle.loads(pickle.dumps(unit))
        assert sent.digest("", files.sha256) == unit.digest("", files.sha256)
        span = job.start - reach[0], job.stop + reach[1]
        whole, part = (j.source.fetch(task.inputs, *span) for j in (job, sent.job))
        assert whole.keys() == part.keys()
        for name, values in whole.items():
            xr.testing.assert_equal(values, part[name])


def test_what_is_said_of_events_fits_them(task: Task, model: Model, opened: Opening) -> None:
    job = opened.jobs[0]
    events = terrella.run(model, job.source, job.start, job.stop).events
    if events is None:
        assert not task.events
        return
    table, kinds = arrow(events, task.events)
    assert table.num_rows == len(events)
    assert {c.name for c in task.events if c.name in events} <= kinds.keys()
    assert any(k == "time" for k in kinds.values())
    for name, values in events.items():
        if kinds[str(name)] == "text":
            assert values.dtype == object or isinstance(values.dtype, pd.StringDtype)
        given = values.replace("", None).notna().sum()
        stored = table[str(name)].null_count
        if kinds[str(name)] != "text":
            assert len(events) - stored == given, name


def test_figures_are_drawn(task: Task, model: Model, opened: Opening, tmp_path: Path) -> None:
    job = opened.jobs[0]
    made = terrella.run(model, job.source, job.start, job.stop)
    figures = task.plot(made, tmp_path / "scene")
    assert figures
    for path in figures:
        head = path.read_bytes()
        assert len(head) > 5000
        assert head[:4] in (b"\x89PNG", b"GIF8")


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "truncated"])
def test_bad_input_is_refused_in_one_line(
    task: Task, model: Model, scene: list[Path], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"bad_{scene[0].name}"
    body = scene[0].read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "text": b"this is no data file\n" * 9,
                "truncated": body[: len(body) // 3],
            }[kind]
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        reasons = _refusals(task, model, path)
    assert reasons
    for reason in reasons:
        assert "\n" not in reason.strip()
        assert path.name in reason


def _refusals(task: Task, model: Model, path: Path) -> list[str]:
    try:
        opened = task.open([path], model.options())
        for job in opened.jobs:
            terrella.run(model, job.source, job.start, job.stop)
    except Refused as refusal:
        return [str(refusal)]
    return [r.why for r in opened.refused]


def test_baselines_speak_on_the_same_rows(task: Task, model: Model, windows: Windows) -> None:
    forward = task.predict or predict
    ours = forward(model.network, windows)
    for name, baseline in task.baselines.items():
        if windows.y is None:
            pytest.skip("the demo's scene has no truth in its files")
        try:
            outputs = baseline.fit((windows,), model.recipe)(blind(windows))
        except NoData as absent:
            assert baseline.kind == "published", f"{name}: {absent}"
            continue
        assert outputs.keys() <= ours.keys(), name
        for key, value in outputs.items():
            assert len(value) == len(ours[key]), name


def test_features_are_named_and_say_what_is_new(task: Task, windows: Windows) -> None:
    seen = task.features(windows)
    assert seen.values.shape == (len(windows), len(seen.names))
    assert len(set(seen.names)) == len(seen.names) <= 64
    known = Features(seen.names, seen.values[windows.valid])
    flags, _ = novelty.compare(novelty.summarise(known), known)
    # The furthest row of a short scene lies beyond a quantile of its own distances.
    assert (flags > 0).sum() <= 1 + 0.02 * len(flags), "rows it was made from are known"
    # Far beyond anything seen, column by column.
    spread = np.nanstd(known.values) + 1.0
    flags, share = novelty.compare(
        novelty.summarise(known), Features(seen.names, known.values + 1e6 * spread)
    )
    assert (flags[np.isfinite(known.values).any(1)] & 1).all() and share


def test_a_run_carries_verdict_and_novelty(task: Task, model: Model, opened: Opening) -> None:
    job = opened.jobs[0]
    series = terrella.run(model, job.source, job.start, job.stop).series
    assert series.attrs["verdict"] == model.card.verdict
    assert model.card.certificate["verdict"] == model.card.verdict
    flags = series["novelty"]
    assert flags.dtype == np.uint8 and flags.dims == ("time",)
    assert flags.attrs["flag_meanings"] == "range distance"


def test_the_verdict_of_a_packaged_card_is_what_its_numbers_say(model: Model) -> None:
    known = {"leaks": "", **model.card.certificate}
    fields = ("value", "lo", "hi")
    known["gains"] = [{**dict.fromkeys(fields), **g} for g in known["gains"]]
    assert certificate.verdict(known) == model.card.verdict
    assert certificate.skill(known) == known["skill"]


@pytest.mark.slow
def test_an_evaluation_repeats_to_the_last_byte(task: Task, tmp_path: Path) -> None:
    made = []
    for k in range(2):
        learning.certified(
            task, [], "default", {}, task.evaluation(**task.quick), Judging(draws=50, rolls=3),
            tmp_path / str(k), configs.load(task),
        )  # fmt: skip
        made.append([(tmp_path / str(k) / n).read_bytes()
                     for n in ("certificate.json", "scores.csv", "certificate.md")])  # fmt: skip
    assert made[0] == made[1]


def test_packaged_weights_have_an_honest_card(model: Model, task: Task) -> None:
    card = model.card
    assert card.name == "default" and card.task == task.name
    assert card.parameters > 0 and card.licence and card.doi and card.command
    assert card.data and card.split and card.seed is not None
    assert weights.locate(task.name, "default").stat().st_size < 5 << 20
    names = {str(s["model"]) for s in card.scores}
    assert "terrella" in names
    assert len(names) > 1, "baselines stand beside the network"
    for row in card.scores:
        if np.isfinite(row["value"]) and np.isfinite(row["lo"]):
            assert row["lo"] <= row["hi"]


def test_tables_of_results_are_those_of_the_cards() -> None:
    """The README's and the results' tables are made by a command; here they are compared."""
    made = results.overview(results.packaged())
    root = Path(__file__).parents[1]
    for page in ("README.md", "docs/results.md"):
        assert made in (root / page).read_text("utf-8"), f"{page}: run `make results`"
    for card in results.packaged():
        assert results.chapter(card) in (root / "docs/results.md").read_text("utf-8")
