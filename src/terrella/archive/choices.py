"""What a run over an archive may choose. Imports nothing heavy: these are flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from terrella.task import option


@dataclass(frozen=True)
class Scale:
    """Flags of ``terrella run`` that make ``--out`` a store."""

    workers: int = option(0, "make a store with this many processes; 1 needs no cluster")
    scheduler: str = option("", "make a store on the dask cluster at this address (tcp://...)")
    memory: str = option("2GiB", "memory of one local worker; one that needs more is stopped")
    dry_run: bool = option(False, "say what would be done, and do nothing")
    series: bool = option(True, "keep the continuous product, too, not only the events")
    renew: bool = option(False, "make a store again that was made with other weights or options")
    prune: bool = option(False, "drop units of the store that are of no input given")


def wants_store(scale: Scale, out: Path) -> bool:
    """Whether a run goes the archive's way: asked for, or ``out`` is a store already."""
    asked = scale.workers or scale.scheduler or scale.dry_run
    return bool(asked) or (out / "store.json").is_file()
