from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from terrella.tasks.reconnection.derive import cross, normalise
from terrella.tasks.reconnection.events import DOI, EVENTS, chosen
from terrella.tasks.reconnection.scale import Scale, factors, lobe_field, settle
from terrella.tasks.reconnection.simulate import simulate
from terrella.tasks.reconnection.task import Options
from terrella.types import NoData, Refused

SPAN = np.datetime64("2017-07-11T22:33:30", "ns"), np.datetime64("2017-07-11T22:34:15", "ns")


def test_the_event_table() -> None:
    assert len(EVENTS) == 23 and DOI == "10.1029/2022JA030577"
    assert EVENTS["E"].b0 == 7.805345825 and EVENTS["E"].n0 == 0.19892825
    assert list(chosen("A,C,D")) == list(chosen("acd")) == ["A", "C", "D"]
    assert len(chosen("all")) == 23
    assert all(e.span[0] < e.span[1] for e in EVENTS.values())
    with pytest.raises(Refused, match="--event K: no such event"):
        chosen("A,K")


@pytest.mark.realdata
def test_the_event_table_is_the_published_one(realdata: object) -> None:
    import pandas as pd

    table = pd.read_csv(f"{realdata}/reconnection/rogers2023_events.csv")
    assert table["event"].tolist() == list(EVENTS)
    for row in table.itertuples():
        event = EVENTS[str(row.event)]
        assert (event.start, event.stop, event.b0, event.n0) == (
            row.start, row.stop, row.B0_nT, row.n0_cm3,
        )  # fmt: skip


def test_lobe_field_by_hand() -> None:
    # 20 nT is 0.15915 nPa; with 0.1 nPa of plasma the lobe has 0.25915 nPa, 25.52 nT
    tensor = 0.05 * np.eye(3)[None]
    got = lobe_field(np.array([[0.0, 20.0, 0.0]]), tensor, tensor)
    assert got[0] == pytest.approx(np.sqrt((20e-9**2 / 8e-7 / np.pi + 1e-10) * 8e-7 * np.pi) * 1e9)


def test_estimates_cover_the_truth() -> None:
    """Over 24 simulated crossings, B0 and n0 lie within two of their errors in most."""
    off_b, off_n, sure_n = [], [], []
    for seed in range(100, 124):
        record = simulate(seed, 60 / 3600, field_rate=64.0)
        truth = record["mms1_truth"].attrs
        seen = cross(record, "1", Options()).scale
        assert seen.origin == "estimated"
        off_b.append(np.log(seen.b0 / truth["b0"]) / seen.b0_error)
        off_n.append(np.log(seen.n0 / truth["n0"]) / seen.n0_error)
        sure_n.append(seen.n0_error)
    assert np.mean(np.abs(off_b) < 2) >= 0.85
    assert np.mean(np.abs(off_n) < 2) >= 0.85
    assert max(sure_n) > 2 * min(sure_n), "an error that is the same everywhere says nothing"


@pytest.mark.parametrize(
    ("given", "said"),
    [({"b0": 0.0}, "--b0 0: must be a positive"), ({"n0": -1.0}, "--n0 -1: must be a positive"),
     ({"b0": float("nan")}, "--b0 nan")],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        settle(Options(**given), SPAN, None)


def test_given_goes_before_event_goes_before_seen() -> None:
    seen = Scale(9.0, 0.3, 0.05, 0.1, "estimated", 9.0, 0.3)
    assert settle(Options(), SPAN, seen).origin == "estimated"
    event = settle(Options(event="D,E"), SPAN, seen)
    assert (event.b0, event.n0, event.origin) == (7.805345825, 0.19892825, "event E")
    mixed = settle(Options(event="E", b0=8.0), SPAN, seen)
    assert (mixed.b0, mixed.n0) == (8.0, 0.19892825)
    half = settle(Options(b0=8.0), SPAN, seen)
    assert (half.b0, half.b0_error, half.n0, half.n0_error) == (8.0, 0.0, 0.3, 0.1)
    assert settle(Options(b0=16.0, n0=0.3), SPAN, seen).suspect
    assert not settle(Options(b0=9.3, n0=0.3), SPAN, seen).suspect
    with pytest.raises(NoData, match="no overlap in time; event A is 2017-05-28"):
        settle(Options(event="A"), SPAN, seen)
    with pytest.raises(NoData, match="give --b0 and --n0"):
        settle(Options(), SPAN, None)


def test_factors_are_what_another_scale_would_give() -> None:
    scale = Scale(20.0, 0.2, 0.1, 0.2)
    drawn = factors(scale, 8)
    assert drawn.shape == (8, 14)
    np.testing.assert_array_equal(drawn, factors(scale, 8))
    rng = np.random.default_rng(0)
    v, n = rng.normal(size=(5, 3)), rng.uniform(0.1, 1, 5)
    base = normalise(v, v, n, n, v, v, scale)
    fb, fn = 1 / drawn[3, 0], 1 / drawn[3, 6]
    other = normalise(v, v, n, n, v, v, Scale(20.0 * fb, 0.2 * fn))
    np.testing.assert_allclose(base * drawn[3], other, rtol=2e-5)
    many = -np.log(factors(scale, 512))
    assert many[:, 0].std() == pytest.approx(0.1, rel=0.05)
    assert many[:, 6].std() == pytest.approx(0.2, rel=0.05)
    assert factors(Scale(20.0, 0.2), 8).tolist() == np.ones((1, 14)).tolist()
