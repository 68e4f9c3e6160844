"""Maps and orbits: histories once per instant, places once per grid, the rest per point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from terrella.types import Windows

BLOCK = 8192  # points whose joint part runs at once; bounds memory, fits a core's cache
HISTORIES_AT_ONCE = 1024
UNKNOWN_REACH = (6.6, 20.5)  # L and |MLAT| of the Van Allen Probes, for weights without coverage


def predict(network: nn.Module, windows: Windows) -> dict[str, np.ndarray]:
    """Both stages at every place of every instant.

    Stage 2 runs where stage 1 reaches ``windows.extra["threshold"]``, everywhere without one.

    Returns:
        ``logit``, ``mean``, ``spread`` (dB), each (rows, points) float32, NaN where stage 2 did not
        run; ``beyond`` (rows, points) uint8, bit 1 place and bit 2 history outside the training.
    """
    network.eval()
    device = next(network.parameters()).device
    place = windows.x["place"]
    histories = {k: v for k, v in windows.x.items() if k != "place"}
    floor = _logit(windows.extra.get("threshold", 0.0))
    with torch.inference_mode():
        if (place.shape[0] > 1 and place.stride(0) == 0) or (
            place.shape[1] > 1 and len(place) == 1
        ):
            first, every = _distinct(place[0].numpy())
            out = _map(network, histories, place[0][first].to(device), floor)
            out = {name: value[:, every] for name, value in out.items()}
        else:
            out = _rows(network, histories, place, floor)
        out["beyond"] = _beyond(network, histories, place)
    return out


def _logit(p: float) -> float:
    if p <= 0 or p >= 1:
        return -math.inf if p <= 0 else math.inf
    return math.log(p / (1 - p))


def _empty(rows: int, points: int) -> dict[str, np.ndarray]:
    return {k: np.full((rows, points), np.nan, np.float32) for k in ("logit", "mean", "spread")}


def _rows(network: nn.Module, histories: Mapping[str, Tensor], place: Tensor, floor: float
          ) -> dict[str, np.ndarray]:  # fmt: skip
    """Each instant has places of its own: the plain loop."""
    device = next(network.parameters()).device
    out = _empty(*place.shape[:2])
    step = max(2 * HISTORIES_AT_ONCE // place.shape[1], 1)
    for lo in range(0, len(place), step):
        part = {k: v[lo : lo + step].to(device) for k, v in histories.items()}
        for name, value in network(place=place[lo : lo + step].to(device), **part).items():
            out[name][lo : lo + step] = value.cpu().numpy()
    quiet = out["logit"] < floor
    out["mean"][quiet] = out["spread"][quiet] = np.nan
    return out


def _distinct(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of place features, and for every row which of them it is.

    The networks see cos^6 of the latitude: the two halves of a map about the equator are one.
    """
    keys = np.ascontiguousarray(place, np.float32).view(np.uint64)
    order = np.lexsort(keys.T)
    ordered = keys[order]
    new = np.append(True, (ordered[1:] != ordered[:-1]).any(1))
    every = np.empty(len(place), np.int64)
    every[order] = np.cumsum(new) - 1
    return order[new], every


def _map(network: Any, histories: Mapping[str, Tensor], place: Tensor, floor: float
         ) -> dict[str, np.ndarray]:  # fmt: skip
    """Every instant sees the same places."""
    rows, points = len(next(iter(histories.values()))), len(place)
    out = _empty(rows, points)
    step = max(BLOCK // points, 1)
    parts = [
        network.encode(
            {k: v[lo : lo + HISTORIES_AT_ONCE].to(place.device) for k, v in histories.items()}
        )
        for lo in range(0, rows, HISTORIES_AT_ONCE)
    ]
    codes = {n: torch.cat([p[n] for p in parts]).unsqueeze(1) for n in parts[0]}
    for at in range(0, points, BLOCK):
        where = slice(at, at + BLOCK)
        there = {n: network.locate(n, place[where]) for n in codes}
        for row in range(0, rows, step):
            which = slice(row, row + step)
            logit = network.finish("occurrence", codes["occurrence"][which], there["occurrence"])
            chance = logit["logit"]
            out["logit"][which, where] = chance.cpu().numpy()
            second = codes["amplitude"][which], there["amplitude"]
            _second(network, *second, chance >= floor, out, which, where)
    return out


def _second(network: Any, code: Tensor, place: Tensor, wanted: Tensor,
            out: dict[str, np.ndarray], which: slice, where: slice) -> None:  # fmt: skip
    if not wanted.any():
        return
    if wanted.float().mean() > 0.8:
        found = network.finish("amplitude", code, place)
        for name, value in found.items():
            view = out[name][which, where]
            view[...] = torch.where(wanted, value, torch.nan).cpu().numpy()
        return
    row, point = torch.nonzero(wanted, as_tuple=True)
    found = network.finish("amplitude", code[row, 0], place[point])
    at = (row.cpu().numpy(), point.cpu().numpy())
    for name, value in found.items():
        view = out[name][which, where]
        view[at] = value.cpu().numpy()


def _beyond(network: Any, histories: Mapping[str, Tensor], place: Tensor) -> np.ndarray:
    coverage = getattr(network, "coverage", None)
    still = place.stride(0) == 0
    seen = place[:1] if still else place
    if coverage is None or not bool(coverage.places.any()):
        flat = math.cos(math.radians(UNKNOWN_REACH[1])) ** 6
        outside = (seen[..., 0] > UNKNOWN_REACH[0]) | (seen[..., 3] < flat)
        odd = torch.zeros(len(place), dtype=torch.bool)
    else:
        outside = coverage.of_places(seen.to(coverage.places.device)).cpu()
        odd = coverage.of_histories({k: v.to(coverage.places.device) for k, v in histories.items()})
    mask = outside.to(torch.uint8) | (odd.cpu().to(torch.uint8) * 2).unsqueeze(-1)
    return np.ascontiguousarray(mask.expand(place.shape[:2]).numpy())
