"""One page about a demo: what was run, with which weights, and its figures."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from terrella import files
from terrella.task import Task
from terrella.types import Product
from terrella.weights import Card

HEAD = """<!doctype html><meta charset="utf-8"><title>Terrella demo</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
img{max-width:100%}table{border-collapse:collapse;font-size:13px}
td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:left}
.note{background:#fff6e0;padding:.5rem .8rem}</style>
<h1>Terrella demo</h1>
<p class="note">Every scene on this page is simulated; every product was made by
<code>terrella demo</code> with the packaged weights.</p>
"""
ROWS = 30


def report(chapters: Sequence[tuple[Task, Card, Path, Product]], folder: Path) -> Path:
    """Write ``index.html`` beside the demo's products.

    Args:
        chapters: task, card of its weights, folder of its products, its last product.
        folder: of the demo.

    Returns:
        The page's path.
    """
    body = [HEAD]
    for task, card, where, product in chapters:
        body.append(f"<h2>{task.name}</h2><p>{html.escape(task.summary)}</p>")
        body.append(
            f"<p>Weights <b>{html.escape(card.name)}</b>: {html.escape(card.summary)} "
            f"({card.parameters:,} parameters, sha256 {card.sha256[:12]}). "
            f"{html.escape(' '.join(card.notes))}</p>"
        )
        for figure in sorted(where.glob("*.png")) + sorted(where.glob("*.gif")):
            link = figure.relative_to(folder).as_posix()
            body.append(f'<p><img src="{link}" alt="{html.escape(figure.stem)}"></p>')
        if product.events is not None and len(product.events):
            body.append(product.events.head(ROWS).to_html(index=False, border=0))
        if card.scores:
            body.append(_scores(card))
    path = folder / "index.html"
    with files.whole(path) as scratch:
        scratch.write_text("\n".join(body), "utf-8")
    return path


def _scores(card: Card) -> str:
    import pandas as pd

    table = pd.DataFrame(list(card.scores))
    table = table[table["group"].isin(["all", table["group"].iloc[0]])]
    return "<h3>Scores of these weights</h3>" + table.to_html(index=False, border=0)
