"""The one judge: planted faults are caught, certificates say what the numbers say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.learn import toy

from terrella import files, novelty, weights
from terrella.learn import certificate, page
from terrella.learn.compare import scores
from terrella.learn.evaluate import Evaluation, digest, evaluate, refitter
from terrella.learn.metrics import Draws, curve, f1, ratio, reliability, sections
from terrella.learn.split import apart, blind, deal, guard, rolled, shuffled
from terrella.learn.train import Training
from terrella.task import Judging, Model, Plain, Task
from terrella.types import Features, Fold, NoData, Refused, Scene, Windows

TRAINING = Training(epochs=4, batch=64, lr=0.1, weight_decay=0.0, patience=4, seed=3)
QUICK = Judging(draws=150, rolls=19)


def judged(
    folds: list[Fold], task: Task = toy.TOY, how: Judging = QUICK
) -> tuple[dict[str, Any], Evaluation]:
    recipe = toy.Recipe()
    found = evaluate(
        task, folds, recipe, Plain(), refit=refitter(task, recipe, TRAINING), judging=how
    )
    model = Model(task, toy.Line(recipe), recipe, weights.Card("toy", "default", sha256="0" * 64))
    return certificate.certify(found, model, how, Plain())[0], found


@pytest.fixture(scope="module")
def sound() -> tuple[dict[str, Any], Evaluation]:
    return judged([toy.fold()])


def test_a_signal_is_found_and_no_more_than_is_there(sound: tuple[Any, Evaluation]) -> None:
    body, found = sound
    assert body["skill"] == "shown"
    assert body["verdict"].startswith("beats ")
    assert "off" not in body["verdict"] and "shortcut" not in body["verdict"]
    gain = next(g for g in body["gains"] if g["group"] == "all")
    assert gain["p"] == pytest.approx(1 / 20) and gain["blocks"] == 60
    table, _ = scores(found, QUICK)
    value = table[(table["group"] == "all") & (table["metric"] == "accuracy")].set_index("model")
    assert value.loc["terrella", "value"] <= value.loc["best attainable", "hi"]
    assert value.loc["terrella", "value"] > value.loc["majority", "value"] + 0.1
    assert set(table["group"]) == {"all", "west", "east"}
    assert any("simulated" in t for t in body["limits"])


def test_a_group_on_both_sides_is_refused() -> None:
    sound = toy.fold()
    leak = dataclasses.replace(sound, train=(*sound.train, sound.test[0].windows))
    with pytest.raises(Refused, match="60 of day lie in both train and test"):
        judged([leak])


def test_a_row_within_the_embargo_is_refused() -> None:
    sound = toy.fold()
    near = toy.world(77, days=2, first=168)  # ends the day before the test rows begin
    guard(dataclasses.replace(sound, validation=(near,), embargo=np.timedelta64(12, "h")))
    with pytest.raises(Refused, match=r"lie within the embargo \(24 h\)"):
        judged([dataclasses.replace(sound, validation=(near,))])


def test_a_split_that_keeps_nothing_apart_is_refused() -> None:
    with pytest.raises(Refused, match="names no group"):
        judged([dataclasses.replace(toy.fold(), keys=())])


def test_a_split_that_leaks_on_purpose_certifies_nothing(tmp_path: Path) -> None:
    leak = dataclasses.replace(toy.fold(), keys=(), leaks="random rows")
    body, _ = judged([leak])
    assert body["skill"] == "not shown"
    assert body["verdict"] == "no verdict: the split leaks (random rows) and shows nothing"
    card = weights.Card("toy", "default", sha256="0" * 64, recipe={"sharpen": 1.0})
    with pytest.raises(Refused, match="leaks"):
        certificate.on_card(card, body)


def test_shuffled_labels_show_no_skill() -> None:
    lost = dataclasses.replace(shuffled(toy.fold(), 5), null="")
    body, _ = judged([lost])
    assert body["skill"] == "not shown"
    assert body["verdict"].startswith("no skill beyond ")


def test_networks_trained_on_shuffled_labels_are_a_null() -> None:
    body, found = judged([toy.fold()], how=Judging(draws=100, rolls=19, nulls=2))
    assert {"label shuffle 1", "label shuffle 2"} <= set(found.nulls)
    gain = next(g for g in body["gains"] if g["group"] == "all")
    assert gain["null"] < gain["network"] - 0.1 and not gain["lost"]


def test_a_null_that_does_as_well_takes_the_skill_away(sound: tuple[Any, Evaluation]) -> None:
    _, found = sound
    as_well = dataclasses.replace(found, nulls={**found.nulls, "catalogue shift 1": found.network})
    _, gains = scores(as_well, QUICK)
    whole = gains[0]
    assert whole.group == "all" and whole.lo > 0 and whole.lost and not whole.shown


def test_a_metadata_shortcut_is_named() -> None:
    body, _ = judged([toy.fold(signal=0.0, shortcut=1.5)])
    assert body["skill"] == "not shown"
    assert "a shortcut, station, which knows only metadata, does as well" in body["verdict"]


def test_miscalibrated_probabilities_are_shown(sound: tuple[Any, Evaluation]) -> None:
    # Sharpened after training: the answers stay, the probabilities lie.
    sound_fold = toy.fold()
    recipe = toy.Recipe()
    network = refitter(toy.TOY, recipe, TRAINING)(sound_fold.train, sound_fold.validation).network
    network.recipe = toy.Recipe(sharpen=5.0)  # type: ignore[assignment]
    model = Model(toy.TOY, network, recipe, weights.Card("toy", "sharp", sha256="1" * 64))
    given = dataclasses.replace(sound_fold, refit=False)
    found = evaluate(toy.TOY, [given], recipe, Plain(), model=model, judging=QUICK)
    body, _ = certificate.certify(found, model, QUICK, Plain())
    assert "its probabilities are off" in body["verdict"]
    assert body["skill"] == "shown", "the answers are as good as before"
    assert not any(r["off"] for r in sound[0]["reliability"])


def test_models_never_see_the_truth_they_are_tested_on() -> None:
    asked: list[Windows] = []

    def nosy(train: Any, recipe: Any) -> Any:
        assert all(w.y is not None for w in train)

        def predictor(windows: Windows) -> Any:
            asked.append(windows)
            return {"logit": np.zeros(len(windows), np.float32)}

        return predictor

    trained: list[tuple[Any, ...]] = []

    def refit(*parts: Any) -> Model:
        trained.append(parts)
        return Model(toy.TOY, toy.Line(toy.Recipe()), toy.Recipe(), weights.Card("toy", "x"))

    fold = toy.fold()
    task = toy.with_baseline("nosy", "classical", nosy)
    evaluate(task, [fold], toy.Recipe(), Plain(), refit=refit, judging=QUICK)
    assert all(w.y is None and not any(k.startswith("true") for k in w.extra) for w in asked)
    # A refit is handed the training side and nothing else: no test scene is within its reach.
    assert trained == [(fold.train, fold.validation)]
    assert blind(fold.test[0].windows).y is None and fold.test[0].windows.y is not None
    table = pd.DataFrame({"station": ["A"], "kind": ["precursor"]})
    table.attrs["true"] = ["kind", "bearing"]
    told = dataclasses.replace(fold.test[0].windows, extra={"table": table})
    assert list(blind(told).extra["table"]) == ["station"]


def test_a_baseline_that_cannot_be_had_is_said_to_be_missing() -> None:
    def absent(train: Any, recipe: Any) -> Any:
        raise NoData("its weights are not imported")

    body, _ = judged([toy.fold()], toy.with_baseline("published", "published", absent))
    assert "published" not in body["baselines"]
    assert "published is not among the baselines: its weights are not imported" in body["limits"]


def test_models_must_be_judged_on_the_same_rows(sound: tuple[Any, Evaluation]) -> None:
    _, found = sound
    fewer = {**found.tables, "majority": found.tables["majority"].iloc[1:].reset_index(drop=True)}
    with pytest.raises(ValueError, match="other rows"):
        scores(dataclasses.replace(found, tables=fewer), QUICK)


def test_stress_folds_stay_out_of_the_whole() -> None:
    stress = dataclasses.replace(toy.fold(signal=0.0), name="no signal", aside=True)
    body, _ = judged([toy.fold(), stress])
    by_group = {g["group"]: g for g in body["gains"]}
    assert set(by_group) >= {"all", "later", "no signal"}
    assert by_group["all"]["network"] == by_group["later"]["network"]
    assert by_group["all"]["n"] == by_group["later"]["n"]
    assert by_group["later"]["shown"] and not by_group["no signal"]["shown"]


def test_a_certificate_repeats_to_the_last_byte(
    sound: tuple[Any, Evaluation], tmp_path: Path
) -> None:
    again, _ = judged([toy.fold()])
    made = [
        certificate.write(body, tmp_path / f"{k}.json").read_bytes()
        for k, body in enumerate((sound[0], again))
    ]
    assert made[0] == made[1]
    other, _ = judged([toy.fold(seed=1)])
    assert certificate.write(other, tmp_path / "other.json").read_bytes() != made[0]


def test_a_certificate_goes_into_the_card_it_fits(sound: tuple[Any, Any], tmp_path: Path) -> None:
    body, _ = sound
    assert body["certifies"] == "recipe"
    card = weights.Card("toy", "mine", sha256="f" * 64, recipe={"sharpen": 1.0})
    carried = certificate.on_card(card, body)
    assert carried.verdict == body["verdict"]
    assert {r["group"] for r in carried.scores} == {"all"}
    with pytest.raises(Refused, match=r"measured with sharpen 1.0, these weights have 2.0"):
        certificate.on_card(dataclasses.replace(card, recipe={"sharpen": 2.0}), body)
    with pytest.raises(Refused, match="of another sha256"):
        certificate.on_card(card, {**body, "certifies": "weights"})
    with pytest.raises(Refused, match="does not fit weights of ech"):
        certificate.on_card(dataclasses.replace(card, task="ech"), body)
    assert "no certificate" in card.verdict


@pytest.mark.parametrize(
    "change", [{"verdict": "beats everything"}, {"skill": "not shown"}, {"gains": 3}, {"format": 9}]
)
def test_an_edited_certificate_is_refused(
    sound: tuple[Any, Evaluation], tmp_path: Path, change: dict[str, Any]
) -> None:
    body = sound[0]
    path = certificate.write({**body, **change}, tmp_path / "certificate.json")
    with pytest.raises(Refused, match=r"certificate.json"):
        certificate.read(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', "[" * 100_000])
def test_what_is_no_certificate_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(Refused, match="is not a certificate"):
        certificate.read(path)
    with pytest.raises(Refused, match="no such file"):
        certificate.read(tmp_path / "none.json")


def test_the_page_shows_verdict_baselines_and_figures(
    sound: tuple[Any, Any], tmp_path: Path
) -> None:
    body, _ = sound
    made = page.write(body, tmp_path)
    assert {p.name for p in made} == {
        "certificate.html", "certificate.md", "skill.png", "reliability.png",
    }  # fmt: skip
    html = (tmp_path / "certificate.html").read_text()
    assert html.count("data:image/png;base64") == 2 and "<table>" in html
    text = (tmp_path / "certificate.md").read_text()
    for word in ("majority (trivial)", "station (metadata)", "24 h", "best attainable", "west"):
        assert word in text
    assert (tmp_path / "skill.png").read_bytes()[:4] == b"\x89PNG"


def test_a_page_cannot_be_broken_by_names(sound: tuple[Any, Any]) -> None:
    text = page.markdown({**sound[0], "data": "a|b <script>alert(1)</script>"})
    assert "<script>" not in text and "a\\|b" in text


def test_equal_rows_have_equal_hashes() -> None:
    one, again = toy.world(4), toy.world(4)
    assert digest([one]) == digest([again])
    assert again.y is not None
    again.y["class"][0] = 1 - again.y["class"][0]
    assert digest([one]) != digest([again])


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(2, 5))
def test_groups_are_dealt_whole_and_evenly(labels: list[int], count: int) -> None:
    groups = np.array(labels)
    where = deal(groups, count, 0)
    for label in np.unique(groups):
        assert len(np.unique(where[groups == label])) == 1
    load = np.bincount(where, minlength=count)
    assert load.max() - load.min() <= np.bincount(groups).max()


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=40),
    st.lists(st.integers(0, 500), min_size=1, max_size=40),
    st.integers(0, 50),
)
def test_apart_is_a_distance(left: list[int], right: list[int], embargo: int) -> None:
    a, b = (np.datetime64("2020-01-01", "h") + np.array(v) for v in (left, right))
    found = apart(a, b, np.timedelta64(embargo, "h"))
    plain = np.abs(np.subtract.outer(np.array(left), np.array(right))).min(1) > embargo
    assert found.tolist() == plain.tolist()


def test_rolling_keeps_the_outputs_and_loses_the_rows() -> None:
    scene = Scene({}, toy.world(1))
    rows = len(scene.windows)
    outputs = {"logit": np.arange(rows), "table": np.arange(3)}
    moved = rolled(scene, outputs, np.random.default_rng(0))
    assert sorted(moved["logit"]) == list(range(rows)) and (moved["table"] == np.arange(3)).all()
    step = int(moved["logit"][0])
    assert rows // 10 <= rows - step <= rows - rows // 10


def test_shuffling_exchanges_labels_within_their_group_only() -> None:
    fold = toy.fold(signal=0.0, shortcut=3.0)
    lost = shuffled(fold, 1)
    before, after = fold.train[0], lost.train[0]
    assert before.y is not None and after.y is not None and lost.null
    assert not torch.equal(before.y["class"], after.y["class"])
    for k in range(6):
        mine = torch.from_numpy(before.extra["station"] == k)
        assert before.y["class"][mine].sum() == after.y["class"][mine].sum()


def test_weights_of_blocks_are_counts_of_blocks() -> None:
    drawn = Draws.of(np.array(["a", "a", "b", "c", "c", "c"]), 200, 0)
    rows = drawn.weights
    assert (rows[0] == 1).all() and drawn.blocks == 3
    assert (rows[:, 0] == rows[:, 1]).all() and (rows[:, 3] == rows[:, 5]).all()
    assert (rows[:, [0, 2, 3]].sum(1) == 3).all()


def test_an_interval_of_one_block_is_not_given() -> None:
    drawn = Draws.of(np.zeros(9), 50, 0)
    value, lo, hi = drawn.interval(np.linspace(0, 1, 51))
    assert value == 0 and np.isnan(lo) and np.isnan(hi)


def test_few_blocks_widen_an_interval() -> None:
    drawn = np.random.default_rng(0).normal(size=4001)
    few, many = (Draws(np.empty((0, 0)), n).interval(drawn) for n in (8, 500))
    assert few[2] - few[1] > 1.2 * (many[2] - many[1])


def test_metrics_weigh_rows_as_copies_would() -> None:
    table = pd.DataFrame({"tp": [3.0, 0, 1], "fp": [1.0, 0, 2], "fn": [0.0, 4, 1]})
    weight = np.array([2.0, 0, 3])
    copies = table.loc[[0, 0, 2, 2, 2]]
    for metric in (f1("tp", "fp", "fn"), ratio("tp", "fp")):
        assert metric(table, weight) == metric(copies, np.ones(5))
    assert np.isnan(ratio("tp", "fn")(table, np.array([1.0, 0, 0])))


def test_parts_of_a_table() -> None:
    table = pd.DataFrame({
        "group": [2017] * 4 + [2018] * 4, "lead": [1, 2] * 4,
        "activity": ["storm", "", "", ""] * 2, "aside": [False] * 6 + [True] * 2,
    })  # fmt: skip
    found = {(g, lead): mask.sum() for g, lead, mask in sections(table)}
    assert found == {
        ("all", 1): 3, ("2017", 1): 2, ("2018", 1): 2, ("storm", 1): 2,
        ("all", 2): 3, ("2017", 2): 2, ("2018", 2): 2,
    }  # fmt: skip


def test_a_reliability_curve_knows_what_is_off() -> None:
    rng = np.random.default_rng(2)
    p = rng.random(20_000)
    block = np.arange(20_000) % 200
    for power, wrong in ((1.0, False), (2.0, True)):
        y = rng.random(20_000) < p**power
        table = pd.DataFrame(reliability(p, y * 1.0))
        found = curve(table, Draws.of(block, 200, 0))
        assert found["off"].any() == wrong
        assert found["n"].sum() == 20_000 and (found["lo"] <= found["y"]).all()


def test_novelty_flags_what_was_never_seen() -> None:
    rng = np.random.default_rng(0)
    twin = rng.normal(size=(5000, 1))
    values = np.hstack([twin, twin + 0.1 * rng.normal(size=(5000, 1)), rng.normal(size=(5000, 1))])
    values[::50, 2] = np.nan
    summary = json.loads(json.dumps(novelty.summarise(Features(("a", "b", "c"), values))))
    flags, share = novelty.compare(summary, Features(("a", "b", "c"), values))
    assert (flags == 0).mean() > 0.99 and not share, "the training rows are known"
    odd = np.array([[0.0, 0, 0], [9, 9, 0], [1.5, -1.5, 0], [np.nan, np.nan, np.nan]])
    flags, share = novelty.compare(summary, Features(("a", "b", "c"), odd))
    # Beyond its range; then each within its range, but never together; a gap is not news.
    assert flags.tolist() == [0, 3, 2, 0]
    assert share == {"a": 0.25, "b": 0.25}
    with pytest.raises(ValueError, match="other features"):
        novelty.compare(summary, Features(("a", "b"), odd[:, :2]))


def test_a_hash_of_a_file_is_in_the_certificate(
    sound: tuple[Any, Evaluation], tmp_path: Path
) -> None:
    data = tmp_path / "data.csv"
    data.write_text("1\n")
    found = sound[1]
    model = Model(toy.TOY, toy.Line(toy.Recipe()), toy.Recipe(), weights.Card("toy", "x"))
    body, _ = certificate.certify(found, model, QUICK, Plain(), [tmp_path])
    assert body["inputs"] == {"data.csv": files.sha256(data)}


@pytest.mark.slow
def test_intervals_hold_what_they_say() -> None:
    """90 % intervals contain a known score 85 to 95 % of the time."""
    from benchmarks.intervals import BLOCKS, KINDS, coverage

    for kind in KINDS:
        for blocks in BLOCKS:
            share = coverage(kind, blocks, 600)
            assert 0.85 <= share <= 0.95, f"{kind}, {blocks} blocks: {share:.3f}"


def test_label_shuffles_need_a_plan_that_trains() -> None:
    given = dataclasses.replace(toy.fold(), refit=False)
    model = Model(toy.TOY, toy.Line(toy.Recipe()), toy.Recipe(), weights.Card("toy", "x"))
    with pytest.raises(Refused, match="a null needs one that trains"):
        evaluate(toy.TOY, [given], toy.Recipe(), Plain(), model=model, judging=Judging(nulls=1))
    with pytest.raises(Refused, match="nothing to score"):
        evaluate(toy.TOY, [], toy.Recipe(), Plain())
