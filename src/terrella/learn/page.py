"""A certificate as a page for people: Markdown, the same as HTML, and its two figures."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella import files
from terrella.learn.evaluate import BEST, NETWORK
from terrella.plot import COLOURS, figure, save, styled

MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
TINTS = (*COLOURS[:6], "0.55", "#8B4513")  # of models; black is the best attainable
MOST = 12  # parts of the rows (years, stations) that a figure has room for
STYLE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}}
img{{max-width:100%}}table{{border-collapse:collapse;font-size:13px}}
td,th{{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:left}}
blockquote{{background:#fff6e0;margin:0;padding:.5rem .8rem}}</style>
"""


def write(body: Mapping[str, Any], folder: Path, more: Mapping[str, Any] | None = None
          ) -> list[Path]:  # fmt: skip
    """Write ``certificate.md``, ``certificate.html`` (figures inside) and the figures.

    Args:
        body: from ``learn.certificate.certify``.
        folder: where they go.
        more: further figures of the task, by name.

    Returns:
        The files written; the page first.
    """
    from markdown_it import MarkdownIt

    drawn = [save(skill_figure(body), folder / "skill.png")] if body["gains"] else []
    if body["reliability"]:
        drawn.append(save(reliability_figure(body), folder / "reliability.png"))
    drawn += [save(made, folder / f"{name}.png") for name, made in (more or {}).items()]
    text = markdown(body, [p.name for p in drawn])
    page = STYLE.format(title=f"{body['task']}: certificate")
    page += MarkdownIt("commonmark").enable("table").render(text)
    for path in drawn:
        picture = base64.b64encode(path.read_bytes()).decode()
        page = page.replace(f'src="{path.name}"', f'src="data:image/png;base64,{picture}"')
    made = []
    for name, content in (("certificate.html", page), ("certificate.md", text)):
        with files.whole(folder / name) as scratch:
            scratch.write_text(content, "utf-8")
        made.append(folder / name)
    return [*made, *drawn]


def markdown(body: Mapping[str, Any], figures: Sequence[str] = ()) -> str:
    """The page as Markdown; figures are linked by name."""
    parts = [
        f"# {body['task']}: what {body['weights']['name']!r} was shown to do",
        f"> {_escaped(_sentence(body['verdict']))}",
        *_judged(body),
        "## Gain over the best baseline",
        "Positive is better. The best baseline is chosen on the same rows and again in every draw "
        "of the bootstrap, which is in the network's disfavour.",
        _gains(g for g in body["gains"] if g["group"] == "all"),
        *[f"![{Path(name).stem}]({name})" for name in figures],
        "## Scores",
        _scores(body),
    ]
    rest = [g for g in body["gains"] if g["group"] != "all"]
    if rest:
        parts += ["## By part of the rows", _gains(rest), f"Scores of {NETWORK}:", _parts(body)]
    if body["limits"]:
        parts += ["## Limits", "\n".join(f"- {_escaped(t)}" for t in body["limits"])]
    return "\n\n".join([*parts, "## What it was made from", _hashes(body)]) + "\n"


def _judged(body: Mapping[str, Any]) -> list[str]:
    apart = sorted({k for f in body["folds"] for k in f["keys"]})
    embargo = sorted({f["embargo"] for f in body["folds"] if f["embargo"]})
    kinds = ", ".join(f"{k} ({v})" for k, v in body["baselines"].items())
    rows = [
        ("of", f"{body['certifies']} {body['weights']['name']}"),
        ("data", body["data"]), ("split", body["split"]),
        ("kept apart", ", ".join(apart) + (f"; embargo {', '.join(embargo)}" if embargo else "")),
        ("baselines", kinds),
        ("intervals", f"{body['level']:.0%}, bootstrap of blocks, {body['judging']['draws']} draws,"
         f" seed {body['judging']['bootstrap']}"),
    ]  # fmt: skip
    return [_table(["", "what was judged"], rows)]


def _gains(gains: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for g in gains:
        nulls = [] if g["p"] is None else [f"rolled p {g['p']:.3f}"]
        nulls += [] if g["null"] is None else [f"untrue {g['null']:.3f}"]
        rows.append((
            g["metric"], g["group"], g["lead"], _number(g["network"]),
            f"{g['baseline']} {_number(g['score'])}", _interval(g),
            "yes" if g["shown"] else "no", ", ".join(nulls), g["blocks"],
        ))  # fmt: skip
    head = ["metric", "part", "lead", NETWORK, "best baseline", "gain", "shown", "nulls", "blocks"]
    return _table(head, rows)


def _scores(body: Mapping[str, Any]) -> str:
    rows = [r for r in body["scores"] if r["group"] == "all" and " over " not in r["metric"]]
    leads = list(dict.fromkeys(r["lead"] for r in rows))
    models = list(dict.fromkeys(r["model"] for r in rows))
    found = {(r["metric"], r["lead"], r["model"]): r for r in rows}
    lines = []
    for metric in dict.fromkeys(r["metric"] for r in rows):
        for lead in leads:
            cells = [found.get((metric, lead, m)) for m in models]
            lines.append((metric, lead, *(_interval(c) if c else "" for c in cells)))
    return _table(["metric", "lead", *models], lines)


def _parts(body: Mapping[str, Any]) -> str:
    """The network's scores on each part of the rows, the first dozen of parts."""
    rows = [r for r in body["scores"] if r["model"] == NETWORK and " over " not in r["metric"]]
    parts = list(dict.fromkeys(r["group"] for r in rows))[:MOST]
    found = {(r["metric"], r["lead"], r["group"]): r for r in rows}
    keys = sorted({k[:2] for k in found}, key=[(r["metric"], r["lead"]) for r in rows].index)
    lines = []
    for key in keys:
        cells = [found.get((*key, part)) for part in parts]
        lines.append((*key, *(_interval(c) if c else "" for c in cells)))
    return _table(["metric", "lead", *parts], lines)


def _hashes(body: Mapping[str, Any]) -> str:
    rows: list[tuple[Any, ...]] = []
    for f in body["folds"]:
        rows += [(f"fold {f['name']}, {side}", f"{f[side][0]} rows", f[side][1][:16])
                 for side in ("train", "validation", "test") if f[side][0]]  # fmt: skip
    rows += [(name, "file", sha[:16]) for name, sha in body["inputs"].items()]
    rows.append((f"weights {body['weights']['name']}", "file", body["weights"]["sha256"][:16]))
    return _table(["", "", "sha256"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_escaped(str(c)) for c in line) + " |" for line in lines)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _interval(row: Mapping[str, Any]) -> str:
    ends = "" if row["lo"] is None else f" [{row['lo']:.3g}, {row['hi']:.3g}]"
    return f"{_number(row['value'])}{ends}"


@styled
def skill_figure(body: Mapping[str, Any]) -> Any:
    """Every model's primary scores with intervals: a row a metric, a column a lead."""
    table = pd.DataFrame(body["scores"])
    metrics = list(dict.fromkeys(g["metric"] for g in body["gains"]))
    leads = list(dict.fromkeys(table["lead"]))
    models = list(dict.fromkeys(table["model"]))
    groups = list(dict.fromkeys(table["group"]))[:MOST]
    size = (max(3.1 * len(leads), 5.6) + 0.5 * len(groups), 2.6 * len(metrics) + 1.2)
    made, axes = figure(len(metrics), size=size, ncols=len(leads), squeeze=False, sharey="row",
                        sharex=True)  # fmt: skip
    for across, metric in zip(axes, metrics, strict=True):
        for axis, lead in zip(across, leads, strict=True):
            rows = table[(table["metric"] == metric) & (table["lead"] == lead)]
            for k, model in enumerate(models):
                _points(axis, rows[rows["model"] == model], groups, k, len(models), model)
            axis.set_xticks(range(len(groups)), groups, rotation=20 if len(groups) > 3 else 0)
            if lead != "":
                axis.set_title(f"lead {lead}")
        across[0].set_ylabel(metric)
        seen = {NETWORK, BEST, *(g["baseline"] for g in body["gains"] if g["metric"] == metric)}
        _window(across, table[table["metric"] == metric], seen)
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center",
                ncols=min(len(models), 5), fontsize=8)  # fmt: skip
    return made


def _window(axes: Sequence[Any], rows: pd.DataFrame, seen: set[str]) -> None:
    """Show the models that compete and the bulk of the rest: one far off would flatten them all."""
    value = rows["value"].to_numpy(float)
    first, third = np.nanquantile(value, [0.25, 0.75])
    within = np.clip(value, first - (third - first), third + (third - first))
    kept = np.where(rows["model"].isin(seen), value, within)
    low, high = np.nanmin(kept), np.nanmax(kept)
    room = 0.15 * max(high - low, 1e-3)
    axes[0].set_ylim(low - room, high + room)


def _points(axis: Any, rows: pd.DataFrame, groups: list[str], k: int, n: int, model: str) -> None:
    at = np.arange(len(groups)) + (k - (n - 1) / 2) * 0.8 / n
    rows = rows.set_index("group").reindex(groups)
    value = rows["value"].to_numpy(float)
    error = np.abs(rows[["lo", "hi"]].to_numpy(float).T - value)
    colour = "black" if model == BEST else TINTS[k % len(TINTS)]
    axis.errorbar(at, value, np.nan_to_num(error), fmt=MARKS[k % len(MARKS)], color=colour,
                  ms=6 if model == NETWORK else 4, lw=1, label=model)  # fmt: skip


@styled
def reliability_figure(body: Mapping[str, Any]) -> Any:
    """Frequency against probability with intervals, and how often each probability is given."""
    rows = pd.DataFrame(body["reliability"])
    made, (axis, below) = figure(2, size=(4.6, 5.4), sharex=True, height_ratios=(3, 1))
    p, y = rows["p"].to_numpy(float), rows["y"].to_numpy(float)
    ends = [np.abs(rows[k].to_numpy(float) - y) for k in ("lo", "hi")]
    axis.plot([0, 1], [0, 1], color="0.5", lw=0.8, ls="--")
    axis.errorbar(p, y, np.nan_to_num(ends), fmt="o-", color=COLOURS[0], ms=4, label=NETWORK)
    off = rows["off"].to_numpy(bool)
    if off.any():
        axis.plot(p[off], y[off], "o", ms=9, mfc="none", color=COLOURS[1], label="off")
    axis.set(ylabel="frequency", xlim=(0, 1), ylim=(-0.02, 1.02))
    axis.legend(fontsize=8)
    below.bar(p, rows["n"].to_numpy(float), width=0.06, color=COLOURS[0])
    below.set_yscale("log")
    below.set(xlabel="probability given", ylabel="rows")
    return made
