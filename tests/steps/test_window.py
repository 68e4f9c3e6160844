from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from terrella.steps.window import base, by_step, once_per_sample, slide


@given(samples=st.integers(0, 60), length=st.integers(1, 20), channels=st.integers(1, 5))
def test_windows_are_the_slices_they_say(samples: int, length: int, channels: int) -> None:
    series = torch.arange(samples * channels, dtype=torch.float32).reshape(samples, channels)
    windows = slide(series, length)
    assert windows.shape == (max(samples - length + 1, 0), length, channels)
    for row in range(len(windows)):
        assert torch.equal(windows[row], series[row : row + length])
    if len(windows):
        assert windows.untyped_storage().data_ptr() == series.untyped_storage().data_ptr()


@given(
    samples=st.integers(8, 60),
    length=st.integers(1, 7),
    channels=st.integers(1, 4),
    cut=st.integers(0, 5),
)
def test_the_series_is_found_again_in_any_part(
    samples: int, length: int, channels: int, cut: int
) -> None:
    series = torch.randn(samples, channels)
    part = slide(series, length)[cut:]
    found = base(part)
    if len(part) >= 2:
        assert found is not None
        assert torch.equal(found, series[cut:])
    # A batch that was gathered holds copies; a plain stack of rows must not be mistaken for a view.
    assert base(part.clone()) is None or length == 1


def test_work_is_done_once_a_sample_and_gives_the_same() -> None:
    series, seen = torch.randn(50, 3), []

    def work(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[:-1].numel())
        return x @ torch.arange(12.0).reshape(3, 4)

    windows = slide(series, 7)
    shared = once_per_sample(work, windows)
    copied = once_per_sample(work, windows.clone())
    assert seen == [50, 44 * 7]
    torch.testing.assert_close(shared, copied)


def test_steps_are_laid_out_for_a_walk() -> None:
    series = torch.randn(50, 3)
    weight = torch.arange(12.0).reshape(4, 3)
    windows = slide(series, 7)
    for found in (by_step(lambda x: weight @ x, w) for w in (windows, windows.clone())):
        assert found.shape == (7, 4, 44)
        torch.testing.assert_close(found, (windows @ weight.T).permute(1, 2, 0))
        assert found[3].stride(1) == 1
