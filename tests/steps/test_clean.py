from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from terrella.steps.clean import breaks, carry_forward, spans
from terrella.steps.scale import Standardise

T0 = np.datetime64("2019-10-24T00:00:00", "ns")


def clock(seconds: list[float]) -> np.ndarray:
    return T0 + (1000 * np.array(seconds)).astype("m8[ms]")


def test_jitter_is_no_break_and_a_missing_sample_is() -> None:
    assert not breaks(clock([0, 1.995, 4.0, 6.002]), 2.0).any()
    assert list(breaks(clock([0, 2, 6, 8]), 2.0)) == [False, False, True, False]


@given(hnp.arrays(bool, st.integers(0, 50)), st.integers(1, 9))
def test_a_window_spans_a_break_inside_it(broken: np.ndarray, length: int) -> None:
    found = spans(broken, length)
    assert len(found) == max(len(broken) - length + 1, 0)
    for row, crossing in enumerate(found):
        assert crossing == broken[row + 1 : row + length].any()


def test_known_values_are_held() -> None:
    values = np.array([-1, -1, 1, -1, -1, 0, -1], np.int8)
    assert list(carry_forward(values, values >= 0, 0)) == [0, 0, 1, 1, 1, 0, 0]
    stops = np.arange(7) == 4
    assert list(carry_forward(values, values >= 0, 0, stops)) == [0, 0, 1, 1, 0, 0, 0]


def test_scaling_ignores_what_is_missing() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, float("nan")], [5.0, 5.0]])
    scale = Standardise(2)
    scale.fit(x)
    np.testing.assert_allclose(scale.mean.numpy(), [3.0, 5.0])
    np.testing.assert_allclose(scale.scale.numpy(), [np.sqrt(8 / 3), 1.0])
    assert set(scale.state_dict()) == {"mean", "scale"}
