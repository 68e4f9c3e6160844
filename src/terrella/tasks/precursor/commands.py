"""Verbs of this task: spectrograms, dataset, audit-labels, watch, world, worlds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from terrella.flags import with_flags
from terrella.tasks.precursor.task import Options
from terrella.types import Refusal, Refused

CHOICE = "How files are read and windows labelled"
Folder = Annotated[Path, typer.Option(help="folder for results")]
Files = Annotated[list[Path], typer.Argument(metavar="INPUT ...", help="files or folders")]


def seconds(text: str, flag: str) -> float:
    """A length of time such as 6h, 30min, 90s or 2d in seconds.

    Raises:
        Refused: not a length of time.
    """
    units = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    word = text.strip().lower()
    for unit in sorted(units, key=len, reverse=True):
        number = word.removesuffix(unit)
        if number != word or unit == "s":
            try:
                value = float(number) * units[unit]
            except ValueError:
                continue
            if value > 0:
                return value
            break
    raise Refused(f"{flag} {text!r}: write a length of time such as 6h, 90min or 1800s")


def spectrograms(
    input: Annotated[Path, typer.Option(help="folder (or file) of magnetometer files")],
    output: Annotated[Path, typer.Option(help="folder for the images")],
    window: Annotated[str, typer.Option(help="length of a window: 6h, 1h, 30min")] = "6h",
    overlap: Annotated[float, typer.Option(help="share that the next window repeats")] = 0.0,
    cadence: Annotated[float, typer.Option(help="seconds between samples")] = 1.0,
    bridge: Annotated[float, typer.Option(help="seconds; longer gaps are masked")] = 10.0,
    missing: Annotated[float, typer.Option(help="share of spectra a window may lack")] = 0.25,
    size: Annotated[int, typer.Option(help="pixels on each side")] = 224,
    format: Annotated[str, typer.Option(help="read all files as this format")] = "",
    columns: Annotated[str, typer.Option(help="CSV: time=...,H=...,D=...,Z=...")] = "",
    units: Annotated[str, typer.Option(help="CSV units where not nT: D=arcmin")] = "",
    scale: Annotated[float, typer.Option(help="MiniSEED counts: nT per count")] = 0.0,
    zarr: Annotated[bool, typer.Option("--zarr", help="Zarr in place of NetCDF")] = False,
    png: Annotated[bool, typer.Option("--png", help="a PNG of every window too")] = False,
) -> None:
    """Filter, STFT, dB: H/D/Z images of every window, NetCDF with time and frequency axes.

    Example: `terrella precursor spectrograms --input DIR --output DIR --window 6h --overlap 0`
    """
    from terrella import product, verbs
    from terrella.tasks.precursor import imagefiles
    from terrella.tasks.precursor.prepare import chain_of, images_of, reach
    from terrella.tasks.precursor.spectrogram import check
    from terrella.tasks.precursor.stations import open_files
    from terrella.tasks.precursor.task import INPUTS, Recipe

    recipe = Recipe(
        window=seconds(window, "--window"), cadence=cadence, size=size,
        cutoff=min(0.001, 0.1 / cadence),
    )  # fmt: skip
    options = Options(
        overlap=overlap, bridge=bridge, missing=missing, format=format, columns=columns,
        units=units, scale=scale,
    )  # fmt: skip
    chain = chain_of(recipe, options)
    check(chain)
    with verbs.warnings_as_lines():
        opened = open_files([input], options)
        refused = list(opened.refused)
        made: list[str] = []
        before, after = reach(recipe, options)
        for job in verbs.progress(list(opened.jobs), "spectrograms"):
            try:
                record = job.source.fetch(INPUTS, job.start - before, job.stop + after)
                image, lost, table = images_of(record, chain)
                kept = ((table["start"] >= job.start) & (table["start"] < job.stop)).to_numpy()
                image, lost, table = image[kept], lost[kept], table[kept].reset_index(drop=True)
                attrs = {
                    "station": record["H"].attrs["station"],
                    "conversion": record["H"].attrs["conversion"],
                    "notes": record["H"].attrs["notes"],
                }
                data = imagefiles.dataset(image, lost, table, chain, attrs)
                suffix = "zarr" if zarr else "nc"
                path = output / f"{job.stem}.spectrograms.{suffix}"
                output.mkdir(parents=True, exist_ok=True)
                made.append(str(imagefiles.write(data, path)))
                for k in range(len(image) if png else 0):
                    stamp = str(table["start"].iloc[k].strftime("%Y%m%dT%H%M%S"))
                    name = f"{attrs['station']}_{stamp}.png"
                    made.append(str(imagefiles.write_png(image[k], output / name)))
                notes = [n for n in attrs["notes"].split("; ") if n]
                more = f" (and {len(notes) - 1} more notes in the file)" if len(notes) > 1 else ""
                said = f"; {notes[0]}{more}" if notes else ""
                print(f"{path}: {_count(table['flags'].to_numpy())}{said}")
            except Refused as refusal:
                refused.append(Refusal(str(job.files[0]), str(refusal)))
    inputs = [p for j in opened.jobs for p in j.files]
    product.write_record(
        output, _arguments(), inputs=inputs, chain=dataclasses.asdict(chain), made=made,
        refused=[dataclasses.asdict(r) for r in refused],
    )  # fmt: skip
    _finish(refused, len(opened.jobs) + len(opened.refused))


def _arguments() -> list[str]:
    import sys

    return sys.argv


def _count(flags: Any) -> str:
    from terrella.tasks.precursor.quality import FLAGS

    parts = [f"{len(flags)} windows"]
    for name, bit in FLAGS.items():
        number = int(((flags & bit) > 0).sum())
        if number:
            parts.append(f"{number} {name}")
    return ", ".join(parts)


def _finish(refused: list[Refusal], total: int) -> None:
    from terrella.verbs import say

    if not total:
        raise Refused("nothing to do: no magnetometer file among the inputs")
    if len(refused) == 1:
        raise Refused(refused[0].why)
    for each in refused:
        say(f"refused: {' '.join(each.why.split())}")
    if refused:
        raise Refused(f"{len(refused)} of {total} inputs refused")


def _dataset(
    inputs: Files,
    out: Annotated[Path, typer.Option(help="NetCDF (.nc) to write")],
    window: Annotated[str, typer.Option(help="length of a window, if not the recipe's")] = "",
    config: Annotated[Path | None, typer.Option(help="recipe file (TOML)")] = None,
    options: dict[str, Any] | None = None,
) -> None:
    """Labelled images: precursors of a catalogue and normals matched on station, season, hour, Kp.

    Give magnetometer files, an earthquake catalogue and a station list (CSV), and a Kp table if the
    packaged one is not wanted. Prints what the label audit finds in the set.
    """
    from terrella import registry, verbs
    from terrella.learn import config as configs
    from terrella.tasks.precursor import audit as audits
    from terrella.tasks.precursor import imagefiles
    from terrella.tasks.precursor.prepare import chain_of
    from terrella.tasks.precursor.rows import gather
    from terrella.tasks.precursor.stations import rule

    if out.suffix != ".nc":
        raise Refused(f"--out {out}: a labelled set is one NetCDF file; end the name in .nc")
    chosen = configs.load(registry.get("precursor"), config)
    how = Options(**{**chosen.options, **(options or {})})
    recipe = chosen.recipe
    if window:
        recipe = dataclasses.replace(recipe, window=seconds(window, "--window"))
    with verbs.warnings_as_lines():
        windows = gather(inputs, recipe, how)
    table = windows.extra["table"]
    data = imagefiles.dataset(
        windows.x["image"].numpy(), None, table, chain_of(recipe, how),
        {"rule": str(dataclasses.asdict(rule(how)))},
    )  # fmt: skip
    imagefiles.write(data, out)
    ahead = table[table["kind"] == "precursor"]
    lonely = int((~ahead["matched"]).sum()) if "matched" in ahead else 0
    print(
        f"{out}: {len(ahead)} precursor windows of {ahead['cluster'].nunique()} declustered "
        f"earthquakes at {ahead['station'].nunique()} stations, "
        f"{len(table) - len(ahead)} matched normals, {lonely} precursors without a match"
    )
    for each in audits.confounding(audits.labels_of(table)):
        print(f"{each.level:7} {each.check}: {each.message}")


dataset = with_flags(_dataset, Options, "options", CHOICE, optional=True)


def audit_labels(
    labels: Annotated[Path, typer.Argument(help="label list (CSV)")],
    catalogue: Annotated[Path | None, typer.Option(help="earthquakes (CSV)")] = None,
    stations: Annotated[Path | None, typer.Option(help="station list (CSV)")] = None,
    out: Annotated[Path | None, typer.Option(help="write the findings as CSV")] = None,
) -> None:
    """Check a label list: angle units, geometry, doubled events, confounding, times.

    Example: `terrella precursor audit-labels labels.csv --catalogue quakes.csv --stations st.csv`
    """
    from terrella import files
    from terrella.tasks.precursor import audit as audits
    from terrella.tasks.precursor.catalogue import read_earthquakes, read_stations

    given = audits.read_labels(labels)
    quakes = read_earthquakes(catalogue) if catalogue else None
    places = read_stations(stations) if stations else None
    found = audits.audit(given, quakes, places)
    print(f"{labels}: {len(given)} labels, {len(found)} findings")
    for each in found:
        print(f"{each.level:7} {each.check}: {each.message}")
    if quakes is None or places is None:
        print("note    geometry: not checked; give --catalogue and --stations")
    if out is not None:
        with files.whole(out) as scratch:
            audits.table(found).to_csv(scratch, index=False, lineterminator="\n")


def _watch(
    inputs: Files,
    out: Folder = Path("out/watch"),
    share: Annotated[float, typer.Option(help="part of the span that is learnt from")] = 0.6,
    embargo: Annotated[float, typer.Option(help="days left out between the parts", min=0.0)] = 7.0,
    config: Annotated[Path | None, typer.Option(help="recipe file (TOML)")] = None,
    epochs: Annotated[int | None, typer.Option(help="overrides [train] epochs")] = None,
    options: dict[str, Any] | None = None,
) -> None:
    """Learn from the first part of a record, then watch the rest without a break.

    Draws Molchan's diagram of the network and every baseline against each station's Poisson rate,
    and counts false alarms per station-year.

    Example: `terrella precursor watch DATA/ earthquakes.csv stations.csv --out DIR`
    """
    from terrella import registry, verbs
    from terrella.learn import config as configs
    from terrella.tasks.precursor.watch import watch as look

    if not 0 < share < 1:
        raise Refused(f"--share {share:g}: a share between 0 and 1 is learnt from")
    chosen = configs.load(registry.get("precursor"), config, epochs=epochs)
    how = Options(**{**chosen.options, **(options or {}), "explain": "none"})
    with verbs.warnings_as_lines():
        for line in look(inputs, chosen.recipe, how, chosen.train, share, embargo, out):
            print(line)


watch = with_flags(_watch, Options, "options", CHOICE, optional=True)


def world(
    out: Annotated[Path, typer.Option(help="folder to write")],
    days: Annotated[float, typer.Option(help="length", min=1.0)] = 60.0,
    stations: Annotated[int, typer.Option(help="stations, 1 to 6", min=1, max=6)] = 2,
    quakes: Annotated[int, typer.Option(help="earthquakes", min=1)] = 6,
    strength: Annotated[float, typer.Option(help="injected signal; 0: none")] = 0.0,
    lead: Annotated[float, typer.Option(help="days before an earthquake with the signal")] = 14.0,
    quiet: Annotated[float, typer.Option(help="days after one without")] = 7.0,
    seed: Annotated[int, typer.Option(help="of everything")] = 0,
) -> None:
    """Simulate many stations as FRG604RC day files with catalogue, station list and Kp."""
    from terrella.tasks.precursor.labels import Rule
    from terrella.tasks.precursor.simulate import World, export_world

    made = export_world(
        World(seed=seed, strength=strength, stations=stations, days=days, quakes=quakes), out,
        Rule(lead=lead, quiet=quiet),
    )  # fmt: skip
    print(f"{out}: {len(made)} files")


def worlds(
    out: Folder = Path("out/worlds"),
    seeds: Annotated[int, typer.Option(help="seeds of the world without a signal")] = 20,
    seed: Annotated[int, typer.Option(help="the first of them")] = 0,
) -> None:
    """Three controlled worlds: a strong signal, none at all, and a planted shortcut (minutes)."""
    from terrella import verbs
    from terrella.tasks.precursor.worlds import controlled

    with verbs.warnings_as_lines():
        for line in controlled(out, seeds, seed, verbs.say):
            print(line, flush=True)
