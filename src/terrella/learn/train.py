"""Training through Lightning: early stopping, checkpoints, resume, one or many devices."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from torch import nn

from terrella.learn.data import Batch, Rows, loader
from terrella.task import Task
from terrella.threads import on_threads
from terrella.types import Refused, Windows

SCALE_ROWS = 200_000  # rows that fix the scaling buffers; more would not move them


@dataclass(frozen=True)
class Training:
    """How a network is trained: the ``[train]`` table of a recipe file.

    Attributes:
        epochs: at most.
        batch: rows a step and device.
        lr: peak learning rate of AdamW (cosine to zero, after ``warmup`` epochs).
        weight_decay: of AdamW.
        warmup: epochs of linear warm-up.
        clip: largest gradient norm; 0 for none.
        patience: epochs without a better validation loss before it stops.
        seed: of weights, order and dropout.
        threads: of torch on a CPU. They belong to the settings: with another number sums are added
            in another order, and a seed gives other last digits.
        devices, nodes, accelerator, strategy, precision: as Lightning's Trainer takes them.
    """

    epochs: int = 20
    batch: int = 512
    lr: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 1
    clip: float = 1.0
    patience: int = 5
    seed: int = 42
    threads: int = 2
    devices: int = 1
    nodes: int = 1
    accelerator: str = "auto"
    strategy: str = "auto"
    precision: str = "32-true"


class Learner(lightning.LightningModule):
    """Any task's network with its loss, for Lightning."""

    def __init__(self, task: Task, network: nn.Module, plan: Training, steps: int) -> None:
        super().__init__()
        self.task, self.network, self.plan, self.steps = task, network, plan, max(steps, 1)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout depends on seed and step alone, so a resumed run repeats an unbroken one.
        torch.manual_seed((self.plan.seed * 1_000_003 + self.global_step) * 64 + self.global_rank)

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        loss = self._loss(batch)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["weight"]))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        loss = self._loss(batch)
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch["weight"]), sync_dist=True)

    def _loss(self, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = self.task.loss(self.network(**batch["x"]), batch["y"], batch["weight"])
        return loss

    def configure_optimizers(self) -> Any:
        plan = self.plan
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=plan.lr, weight_decay=plan.weight_decay
        )
        warm = max(plan.warmup * self.steps, 1)
        total = max(plan.epochs * self.steps, warm + 1)

        def share(step: int) -> float:
            # In closed form, so that a resumed run takes the very same steps.
            if step < warm:
                return 0.1 + 0.9 * step / warm
            return 0.5 * (1 + math.cos(math.pi * min((step - warm) / (total - warm), 1.0)))

        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return [optimiser], [{"scheduler": rate, "interval": "step"}]


def fit(
    task: Task,
    recipe: Any,
    train: Sequence[Windows],
    validation: Sequence[Windows],
    plan: Training,
    folder: Path,
    *,
    progress: bool | None = None,
    fresh: bool = False,
) -> nn.Module:
    """Train a task's network and return it with the best validation weights.

    Args:
        task: what to train.
        recipe: the task's recipe.
        train: windows with targets.
        validation: windows with targets, of other groups; they choose the epoch, and a network
            that has ``settle(validation)`` is calibrated on them at the end.
        plan: the training settings.
        folder: checkpoints go to ``folder/checkpoints``. A run killed here goes on from its last
            epoch when started again with the same settings.
        progress: a bar on the terminal; None asks whether there is one.
        fresh: begin again whatever lies there.

    Raises:
        Refused: no rows, or checkpoints of other settings lie in the folder.
    """
    with on_threads(plan.threads):
        with warnings.catch_warnings(), _global_settings_kept():
            _quiet()
            lightning.seed_everything(plan.seed, verbose=False)
            network: nn.Module = task.network(recipe)
            rows, held = (Rows(part, task.sample, plan.seed) for part in (train, validation))
            fit_scale: Any = getattr(network, "fit_scale", None)
            if fit_scale is not None:
                fit_scale(rows[torch.randperm(len(rows))[:SCALE_ROWS].numpy()]["x"])
            feeds = (
                loader(rows, plan.batch, plan.seed),
                loader(held, plan.batch * 4, 0, shuffle=False),
            )
            learner = Learner(task, network, plan, -(-len(rows) // (plan.batch * plan.devices)))
            keep = folder / "checkpoints"
            last = _resume(keep, task, recipe, plan, len(rows), fresh)
            trainer, best = _trainer(plan, folder, keep, progress)
            trainer.fit(learner, *feeds, ckpt_path=last)
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        network.load_state_dict(
            {k.removeprefix("network."): v for k, v in state["state_dict"].items()}
        )
        network = network.cpu().eval()
        settle: Any = getattr(network, "settle", None)
        if settle is not None:
            settle(list(validation))
    return network


def _trainer(
    plan: Training, folder: Path, keep: Path, progress: bool | None
) -> tuple[lightning.Trainer, ModelCheckpoint]:
    """Lightning's trainer, and its callback that knows the best weights."""
    best = ModelCheckpoint(
        keep, "best", monitor="val_loss", save_last=True, enable_version_counter=False
    )
    shown = sys.stderr.isatty() if progress is None else progress
    extra: list[Callback] = [RichProgressBar()] if shown else []
    trainer = lightning.Trainer(
        accelerator=plan.accelerator,
        devices=plan.devices,
        num_nodes=plan.nodes,
        strategy=plan.strategy,
        precision=plan.precision,  # type: ignore[arg-type]
        max_epochs=plan.epochs,
        gradient_clip_val=plan.clip or None,
        callbacks=[best, EarlyStopping("val_loss", patience=plan.patience), *extra],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=shown,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic=True,
        num_sanity_val_steps=0,
    )
    return trainer, best


def _resume(
    keep: Path, task: Task, recipe: Any, plan: Training, rows: int, fresh: bool
) -> str | None:
    """Path of the checkpoint to go on from, after making sure that it is of this very run."""
    what = [task.name, dataclasses.asdict(recipe), dataclasses.asdict(plan), rows]
    mark = hashlib.sha256(json.dumps(what, default=str, sort_keys=True).encode()).hexdigest()
    stamp, last = keep / "settings.sha256", keep / "last.ckpt"
    if fresh or not last.is_file():
        for old in keep.glob("*.ckpt"):
            old.unlink()
        keep.mkdir(parents=True, exist_ok=True)
        stamp.write_text(mark)
        return None
    if not stamp.is_file() or stamp.read_text() != mark:
        raise Refused(
            f"{keep}: holds a run with other settings; give another --out, or --fresh to begin anew"
        )
    return str(last)


@contextlib.contextmanager
def _global_settings_kept() -> Iterator[None]:
    """Lightning makes torch deterministic for the whole process; give it back as it was."""
    before = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _quiet() -> None:
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Lightning's own advice about workers, devices and its internals is not the user's business.
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*(num_workers|GPU available|isinstance).*")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def settings(table: Mapping[str, Any], kind: type[Any], where: str) -> Any:
    """Make a settings dataclass from a TOML table or from flags.

    Raises:
        Refused: a key that the dataclass does not have.
    """
    from terrella.registry import nearest

    known = [f.name for f in dataclasses.fields(kind)]
    for key in table:
        if key not in known:
            raise Refused(f"{where}: unknown key {key!r}; {nearest(key, known)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})
