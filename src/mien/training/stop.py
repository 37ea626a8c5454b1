"""Stopping a training well: the checkpoint first, then the end; and going on within an epoch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import Sampler

from mien.errors import TrainingError
from mien.files import give_name
from mien.sections import TrainerSection

__all__ = ["Order", "Stopped", "Stopper", "save_last"]


def save_last(trainer: lightning.Trainer, folder: Path) -> None:
    """last.ckpt, whole: the old one stands until the new one is written. Every process calls this, the first one writes, and none
    goes on before it is there: one that looked too early would begin anew and wait for the others for ever."""
    place = folder / ".last.part.ckpt"
    trainer.save_checkpoint(place)
    if trainer.is_global_zero:
        give_name(place, folder / "last.ckpt")
    trainer.strategy.barrier()


class Stopped(TrainingError):
    """Somebody asked a training to stop; it can go on."""


class Order(Sampler[int]):
    """The rows of an epoch as another sampler gives them; after a stop within an epoch, the rest of that one first.

    rows: of the epoch that is on.  rest: what a resumed epoch still has to show.  skip: how many rows of it were shown.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.rows: list[int] = []
        self.rest: list[int] | None = None
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        whole = list(self.sampler) if self.rest is None else self.rest
        self.rows, self.rest, self.skip = whole[self.skip :], None, 0
        return iter(self.rows)


class Stopper(Callback):
    """On SIGTERM or Ctrl-C: last.ckpt after the step that is on, then a TrainingError that says how to go on.

    A second Ctrl-C stops at once; what the last checkpoint holds is kept. Of several processes any may be told.
    """

    def __init__(self, folder: Path, order: Order, chosen: TrainerSection) -> None:
        self.folder, self.order, self.chosen = folder, order, chosen
        self.asked = ""
        self._old: dict[int, Any] = {}
        self._within: dict[str, Any] = {}
        self._begun = (-1, 0)  # an epoch that an earlier process began, and how many of its batches that did

    def state_dict(self) -> dict[str, Any]:
        return self._within

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not state_dict:
            return
        self._begun = (int(state_dict["epoch"]), int(state_dict["batches"]))
        if state_dict["rest"] is not None:
            self.order.rest = state_dict["rest"].tolist()
        else:
            self.order.skip = self._begun[1] * self.chosen.batch

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        self._trainer = trainer
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}

    def teardown(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        for number, old in self._old.items():
            signal.signal(number, old)
        self._old = {}

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name

    def after_step(self, batch_idx: int) -> None:
        """Called by the learner when a step is wholly done, with the number of its batch."""
        trainer, done = self._trainer, batch_idx + 1
        if done % self.chosen.accumulate or done >= trainer.num_training_batches or not self._told(trainer):
            return
        epoch, before = self._begun
        rest = self.order.rows[(done - before * (epoch == trainer.current_epoch)) * self.chosen.batch :]
        self._within = {
            "epoch": trainer.current_epoch,
            "batches": done,
            "rest": torch.tensor(rest) if trainer.world_size == 1 else None,
        }
        save_last(trainer, self.folder)
        raise self._ended(f"epoch {trainer.current_epoch + 1}, step {done} of {trainer.num_training_batches}")

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        """The log keeps the checkpoint of a finished epoch, before this is asked."""
        if trainer.current_epoch + 1 < int(trainer.max_epochs or 0) and self._told(trainer):
            raise self._ended(f"epoch {trainer.current_epoch + 1}")

    def _told(self, trainer: lightning.Trainer) -> bool:
        asked = bool(self.asked)
        return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked

    def _ended(self, where: str) -> Stopped:
        return Stopped(
            f"{self.folder}: stopped by {self.asked or 'another process'} after {where}; go on with --resume"
        )
