"""The bench and the pages made from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from terrella import bench, registry, results
from terrella.types import Refused
from terrella.weights import Card

GAIN = {
    "metric": "PE", "lead": 1, "group": "all", "network": 0.9, "baseline": "persistence",
    "kind": "trivial", "score": 0.7, "value": 0.2, "lo": 0.1, "hi": 0.3, "shown": True,
}  # fmt: skip
CARD = Card(
    "toy", "default", sha256="ab" * 32, command="terrella train toy", seed=3,
    certificate={"verdict": "beats persistence", "data": "simulated", "split": "by year",
                 "certifies": "weights", "limits": ["Simulated."], "gains": [GAIN]},
    scores=({"metric": "PE", "lead": 1, "model": "terrella", "value": 0.9, "lo": 0.8, "hi": 1.0},
            {"metric": "PE over x", "lead": 1, "model": "terrella", "value": 0.2}),
)  # fmt: skip


def test_operations_of_a_product_and_of_a_recurrent_layer() -> None:
    a, b = torch.randn(7, 11), torch.randn(11, 13)
    assert bench.operations(lambda: a @ b) == 2 * 7 * 11 * 13
    layer = torch.nn.LSTM(5, 8, batch_first=True)
    x = torch.randn(3, 4, 5)

    def work() -> None:
        with torch.no_grad():
            layer(x)

    # Each of 4 steps: a product of the input and one of the state, into four gates.
    assert bench.operations(work) == 2 * 3 * 4 * (5 + 8) * 4 * 8


def test_speed_is_measured() -> None:
    found = bench.speed_of(registry.get("precipitation"))
    assert found.rows > 10_000 and found.rate > 1000 and found.threads == 1
    assert 0 < found.share < 1 and found.flops > 1000
    assert 0 < found.startup < found.run and 100 < found.peak < 2000


def test_tables_say_what_was_found() -> None:
    table = results.overview([CARD, Card("bare", "default")])
    row = "| toy | PE, lead 1 | 0.9 | persistence 0.7 | 0.2 [0.1, 0.3] | yes | simulated |"
    assert row in table and "bare" not in table
    text = results.chapter(CARD)
    assert "**beats persistence.**" in text and "| PE | 1 | 0.9 [0.8, 1] |" in text
    assert "over x" not in text and "- Simulated." in text
    assert "No certificate" in results.chapter(Card("bare", "default"))


def test_a_page_gets_its_table_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    for table in ("| a |", "| b |"):
        results.into(page, table)
        assert page.read_text() == f"before\n{results.BEGIN}\n{table}\n{results.END}\nafter\n"
    bare = tmp_path / "bare.md"
    bare.write_text("nothing")
    with pytest.raises(Refused, match=r"bare\.md: has no place for results"):
        results.into(bare, "x")
