"""The verb for one row of a feature file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from terrella.types import Refused

BESIDE = 2048  # rows computed together


def read_features(path: Path) -> NDArray[np.floating]:
    """A feature file: ``features`` of an npz, an npy, or a pickle of exactly one numeric array.

    Returns:
        (rows, 224) float64.

    Raises:
        Refused: anything else; no code of the file is ever run.
    """
    from terrella.sources import pickles
    from terrella.sources.base import check_file
    from terrella.tasks.ech.features import WIDTH

    check_file(path)
    with path.open("rb") as stream:
        head = stream.read(6)
    try:
        if head[:4] == b"PK\x03\x04":
            with np.load(path, allow_pickle=False) as held:
                names = list(held)
                name = "features" if "features" in names else names[0]
                array: NDArray[Any] = held[name]
        elif head == b"\x93NUMPY":
            array = np.load(path, allow_pickle=False)
        else:
            array = pickles.array(path)
    except Refused:
        raise
    except Exception as error:  # a damaged archive fails in many ways, each of them a refusal
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise Refused(f"{path}: is no feature file ({reason})") from None
    if array.ndim != 2 or array.shape[1] != WIDTH or array.dtype.kind not in "fiu":
        raise Refused(
            f"{path}: holds {array.dtype} {array.shape}, expected numbers of (rows, {WIDTH})"
        )
    return array.astype(float)


def sample(
    file: Annotated[Path, typer.Argument(help="feature file (npz, npy or their pickle)")],
    index: Annotated[int, typer.Option(help="row, from 0")] = 0,
    weights: Annotated[
        str, typer.Option(help="a name, or a .safetensors file with its card")
    ] = "default",
    threshold: Annotated[
        float, typer.Option(help="probability from which a wave is said to occur")
    ] = 0.5,
) -> None:
    """Both stages for one row of a feature file.

    Example: `terrella ech sample deepech_sample_features.npz --index 60 --weights deepech`
    """
    import torch

    from terrella.tasks.ech.decode import Z80
    from terrella.tasks.ech.features import split
    from terrella.tasks.ech.predict import predict
    from terrella.types import Windows
    from terrella.weights import load

    features = read_features(file)
    if not -len(features) <= index < len(features):
        raise Refused(f"--index {index}: {file} has rows 0 to {len(features) - 1}")
    index %= len(features)
    if not np.isfinite(features[index]).all():
        raise Refused(f"{file}: row {index} holds values that are not finite")
    # Rows beside it go along: a product over many rows is how the authors' outputs were made, and
    # in single precision one row by itself differs from them in the fourth digit.
    first = max(min(index - BESIDE // 2, len(features) - BESIDE), 0)
    part = np.nan_to_num(features[first : first + BESIDE])
    place, histories = split(part)
    x = {k: torch.from_numpy(v.astype(np.float32)) for k, v in histories.items()}
    x["place"] = torch.from_numpy(place.astype(np.float32)).unsqueeze(1)
    time = np.zeros(len(part), "datetime64[ns]")
    out = predict(load("ech", weights).network, Windows(x, time, np.ones(len(part), bool)))
    logit, mean, spread = (float(out[k][index - first, 0]) for k in ("logit", "mean", "spread"))
    place, histories = split(features[index][None])
    chance = 1 / (1 + np.exp(-logit))
    hours = np.degrees(np.arctan2(place[0, 2], place[0, 1])) / 15 % 24
    lat = np.degrees(np.arccos(min(max(place[0, 3], 0), 1) ** (1 / 6)))
    sme, symh = (histories[k][0, -1] for k in ("sme_fast", "symh_fast"))
    print(f"row {index}: L {place[0, 0]:.3f}, MLT {hours:.2f} h, |MLAT| {lat:.2f} deg, "
          f"SME {sme:g}, SYM-H {symh:g} nT")  # fmt: skip
    print(f"occurrence: probability {chance:.6f} (logit {logit:.6f}), "
          f"{'wave' if chance >= threshold else 'no wave'} at threshold {threshold:g}")  # fmt: skip
    reach = (
        ""
        if np.isnan(spread)
        else f", 80 % interval {mean - Z80 * spread:.3f} to {mean + Z80 * spread:.3f}"
    )
    note = "" if chance >= threshold else " (if there were a wave)"
    print(f"amplitude: {mean:.6f} dB{reach}{note}")
    if out["beyond"][index - first, 0]:
        print("note: outside what the network was trained on")
