"""A storm as a film: one frame an instant, GIF through Pillow, MP4 where ffmpeg is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from terrella.types import Refused

WRITERS = {".gif": "pillow", ".mp4": "ffmpeg"}


def film(
    file: Annotated[Path, typer.Argument(help="a map made by `terrella run ech`")],
    out: Annotated[Path, typer.Option(help="film to write, .gif or .mp4")] = Path("out/ech.gif"),
    variable: Annotated[str, typer.Option(help="probability or amplitude")] = "probability",
    fps: Annotated[int, typer.Option(help="frames a second", min=1)] = 8,
    every: Annotated[int, typer.Option(help="take every n-th instant", min=1)] = 1,
    mlat: Annotated[float, typer.Option(help="magnetic latitude shown, degrees")] = 0.0,
) -> None:
    """Turn a map product into a film of the L-MLT dial above SYM-H and SME.

    Example: `terrella ech film out/omni_map.ech.nc --out storm.gif`
    """
    import xarray as xr

    if out.suffix not in WRITERS:
        raise Refused(f"{out}: films are .gif or .mp4")
    if out.suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise Refused(f"{out}: MP4 needs the program ffmpeg, which is not here; write a .gif")
    if variable not in ("probability", "amplitude"):
        raise Refused(f"--variable {variable!r}: choose probability or amplitude")
    if not file.is_file():
        raise Refused(f"{file}: no such file")
    try:
        series = xr.open_dataset(file, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise Refused(
            f"{file}: cannot be read as NetCDF ({str(error).splitlines()[0][:100]})"
        ) from None
    with series:
        if not {"L", "MLT", "MLAT", "time"} <= set(series.dims) or variable not in series:
            raise Refused(f"{file}: is no map of this task; run with --grid to make one")
        times = np.arange(0, series.sizes["time"], every)
        if len(times) < 2:
            raise Refused(
                f"{file}: holds {series.sizes['time']} instants; a film needs two or more"
            )
        print(_write(series, times, out, variable, fps, mlat))


def _write(series: Any, times: Any, out: Path, variable: str, fps: int, mlat: float) -> Path:
    from matplotlib import animation

    from terrella import files
    from terrella.verbs import progress

    made, draw = _scene(series, variable, mlat)
    writer = (animation.PillowWriter if out.suffix == ".gif" else animation.FFMpegWriter)(fps=fps)
    with files.whole(out) as scratch, writer.saving(made, str(scratch), dpi=90):
        for k in progress([int(t) for t in times], "film"):
            draw(k)
            writer.grab_frame()
    return out


def _scene(series: Any, variable: str, mlat: float) -> tuple[Any, Any]:
    from matplotlib.gridspec import GridSpec

    from terrella.plot import figure, time_axis
    from terrella.tasks.ech.plot import CHANCE, POWER, _dial, indices

    made, unused = figure(1, size=(5.6, 6.6))
    unused.remove()
    grid = GridSpec(2, 1, figure=made, height_ratios=[4, 1])
    axis = made.add_subplot(grid[0], projection="polar")
    at = int(np.argmin(np.abs(series["MLAT"].values - mlat)))
    flat = series.isel(MLAT=at)
    look = (
        CHANCE
        if variable == "probability"
        else {**POWER, **dict(zip(("vmin", "vmax"), _range(flat), strict=True))}
    )
    mesh = _dial(axis, made, flat.isel(time=0), variable, look)
    below = made.add_subplot(grid[1])
    indices(below, series)
    mark = below.axvline(series["time"].values[0], color="0.3", lw=1)
    time_axis(below)
    title = made.suptitle("", fontsize=10)

    def draw(k: int) -> None:
        now = flat.isel(time=k)
        mesh.set_array(np.ma.masked_invalid(now[variable].transpose("L", "MLT").values))
        mark.set_xdata([now["time"].values] * 2)
        title.set_text(f"{str(now['time'].values)[:16]} UTC, MLAT {float(now['MLAT']):g}°")

    return made, draw


def _range(flat: Any) -> tuple[float, float]:
    """Colour range of the amplitude over the whole film, one map in memory at a time."""
    ends = []
    for k in range(flat.sizes["time"]):
        one = flat["amplitude"].isel(time=k).values
        if np.isfinite(one).any():
            ends.append((float(np.nanmin(one)), float(np.nanmax(one))))
    if not ends:
        raise Refused("no amplitude anywhere in this map; film the probability")
    low, high = zip(*ends, strict=True)
    return min(low), max(high)
