"""What every training shares: the run folder, seeds, averaged weights, optimizer, schedule, Lightning's loop."""

from __future__ import annotations

import csv
import logging
import math
import pickle
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from mien.errors import ConfigError, MienError, OutputError, TrainingError
from mien.files import whole_file
from mien.models.weights import write_tensors
from mien.recipe import DetectorRecipe, Recipe
from mien.sections import LEAST, NetworkSection, ScheduleSection, TrainerSection
from mien.training.memory import keep_memory
from mien.training.optimizers import build_optimizer, rate_at
from mien.training.stop import Order, Stopper, save_last

__all__ = ["Freezer", "Learner", "monitored", "quiet", "read_metrics", "run_loop"]

_TOLD = ("loss", "accuracy", "macro_f1", "auxiliary_accuracy", "ccc", "rmse")


def _average(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential average that follows faster at first, (1 + n) / (10 + n) up to `decay` after n updates: else a run of
    few steps would keep its first weights."""

    def update(kept: Any, current: Any, updates: Any) -> None:
        n = float(updates)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(kept, current, updates)

    return update


class Learner(lightning.LightningModule):
    """A network that is trained by a recipe; `kept` is the averaged one where the recipe asks for an average."""

    def __init__(self, network: nn.Module, recipe: Recipe | DetectorRecipe) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe
        self.teachers: Sequence[nn.Module] = ()
        self.after_step: Callable[[int], None] = lambda _: None  # Stopper's, which must see the average updated
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._slow: tuple[list[float], float] = [], 0.0  # a plateau's rates and the steps of its warm-up
        decay = recipe.trainer.ema
        self.averaged = (
            AveragedModel(network, multi_avg_fn=_average(decay), use_buffers=True).requires_grad_(False)
            if decay
            else None
        )

    @property
    def kept(self) -> nn.Module:
        """The network to keep."""
        return self.averaged.module if self.averaged is not None else self.network

    def seed_step(self, step: int) -> None:
        """Every random draw of a step depends on seed, epoch, step and process alone: a resumed run repeats it, and so does
        the second pass of sharpness-aware minimisation."""
        number = ((self.recipe.seed * 100_003 + self.current_epoch) * 1_000_003 + step) * 1009 + self.global_rank
        torch.manual_seed(number % 2**63)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """The warm-up of a plateau: Lightning's own schedules take no second one beside it."""
        rates, warm = self._slow
        if warm and self.global_step <= math.ceil(warm):
            share = min(1.0, (self.global_step + 1) / (warm + 1))
            for group, rate in zip(self.trainer.optimizers[0].param_groups, rates, strict=True):
                group["lr"] = rate * share

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """The average follows the optimizer's steps, of which `trainer.accumulate` batches make one."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.after_step(batch_idx)

    def place(self) -> tuple[int, int]:
        """(rank, world) of this process."""
        return (self.trainer.global_rank, self.trainer.world_size) if self._trainer is not None else (0, 1)

    def finite(self, loss: Tensor, step: int) -> Tensor:
        """The loss, logged. Raises TrainingError if it is not finite."""
        if not torch.isfinite(loss):
            raise TrainingError(
                f"epoch {self.current_epoch}, step {step}: the loss is {loss.item()}; lower optimizer.lr, "
                "set trainer.clip=1, or train in 32-true"
            )
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self.recipe.optimizer)
        schedule, steps = self.recipe.schedule, int(self.trainer.estimated_stepping_batches)
        if schedule.name == "plateau":
            least = schedule.monitor in LEAST
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, "min" if least else "max", schedule.factor, schedule.patience
            )
            self._slow = [group["lr"] for group in optimizer.param_groups], schedule.warmup * steps / schedule.epochs
            return optimizer
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(schedule, step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


class Freezer(Callback):
    """Keeps the first stages of the backbone as they are, and releases one every `unfreeze` epochs, the last one first."""

    def __init__(self, section: NetworkSection) -> None:
        self.section = section

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Lightning does not start an epoch again that goes on from within."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if not self.section.freeze:
            return
        stages = pl_module.network.backbone.stages
        frozen = len(stages) if self.section.freeze < 0 else min(self.section.freeze, len(stages))
        if self.section.unfreeze:
            frozen = max(0, frozen - trainer.current_epoch // self.section.unfreeze)
        for number, stage in enumerate(stages):
            stage.requires_grad_(number >= frozen)
            stage.train(number >= frozen)  # norms keep their statistics too


class _EpochLog(Callback):
    """After each epoch: a line in metrics.csv, the state in last.ckpt (whole: the old one stands until the new one is
    written), and best.safetensors if the monitored figure is the best so far and the recipe keeps the best.

    It also steps a plateau, between the line and the state: Lightning does so after both, and not at all in an epoch that
    was resumed, so a stop would lose the step.
    """

    def __init__(self, folder: Path, recipe: Recipe | DetectorRecipe) -> None:
        self.folder, self.recipe = folder, recipe
        self.best: float | None = None
        self._plateau: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "plateau": self._plateau}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self._plateau = state_dict["best"], state_dict.get("plateau", {})

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Lines of epochs that are done again go: a kill may fall between a line and its checkpoint."""
        if pl_module.plateau is not None and self._plateau:
            pl_module.plateau.load_state_dict(self._plateau)
        path = self.folder / "metrics.csv"
        if trainer.is_global_zero and path.is_file():
            head, *rows = path.read_text(encoding="utf-8").splitlines()
            kept = [row for row in rows if int(row.split(",")[0]) < trainer.current_epoch]
            with whole_file(path, overwrite=True) as part:
                part.write_text("\n".join([head, *kept]) + "\n", encoding="utf-8")

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        figures = {
            name: float(value) for name, value in sorted(trainer.callback_metrics.items())
        }  # all processes at once
        if trainer.is_global_zero:
            self._log(trainer, figures)
            self._keep_best(figures, pl_module)
        if pl_module.plateau is not None:
            pl_module.plateau.step(figures[f"val/{self.recipe.schedule.monitor}"])
            self._plateau = pl_module.plateau.state_dict()
        save_last(trainer, self.folder)

    def _log(self, trainer: lightning.Trainer, figures: dict[str, float]) -> None:
        path = self.folder / "metrics.csv"
        row = {name: f"{value:.5f}" for name, value in figures.items()}
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        row = {"epoch": str(trainer.current_epoch), "lr": f"{rate:.6g}", **row}
        rows: list[dict[str, str]] = [*read_metrics(path), row]
        names = list(dict.fromkeys(name for one in rows for name in one))  # a run of an older mien has fewer
        with (
            whole_file(path, overwrite=True) as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(rows)

    def _keep_best(self, figures: dict[str, float], pl_module: Any) -> None:
        if self.recipe.trainer.keep != "best":
            return
        monitor = self.recipe.schedule.monitor
        score = figures[f"val/{monitor}"] * (-1 if monitor in LEAST else 1)
        if self.best is None or score > self.best:
            self.best = score
            with whole_file(self.folder / "best.safetensors", overwrite=True) as part:
                write_tensors(
                    {name: t.detach().cpu().contiguous() for name, t in pl_module.kept.state_dict().items()}, part
                )


class _Early(EarlyStopping):
    """Ends training when the monitored figure no longer improves, and stays ended when such a run is resumed: it counts
    before the checkpoint of an epoch is written, not after it as Lightning's does."""

    def __init__(self, schedule: ScheduleSection) -> None:
        super().__init__(
            f"val/{schedule.monitor}",
            patience=schedule.stop,
            mode="min" if schedule.monitor in LEAST else "max",
            check_on_train_epoch_end=False,
        )

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        trainer.should_stop = self.wait_count >= self.patience


def monitored(trainer: lightning.Trainer, name: str) -> float:
    """The latest figure of that name of the held-out rows. Raises ConfigError where these do not give it."""
    figures = {
        key.removeprefix("val/"): float(value)
        for key, value in trainer.callback_metrics.items()
        if key.startswith("val/")
    }
    if not math.isfinite(figures.get(name, math.nan)):
        there = ", ".join(key for key, value in figures.items() if math.isfinite(value))
        raise ConfigError(f"schedule.monitor: the held-out rows give no {name}; they give {there}")
    return figures[name]


class _Monitor(Callback):
    """Raises ConfigError where the held-out rows do not give the figure on which the recipe's training depends."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        monitored(trainer, self.name)


class _Teller(Callback):
    """Says after each epoch how far training is, what the held-out rows say, and how long it will still take."""

    def __init__(self, tell: Callable[[str], None], epochs: int) -> None:
        self.tell, self.epochs = tell, epochs
        self.began, self.first = 0.0, 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        self.began, self.first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        done = trainer.current_epoch + 1
        figures = trainer.callback_metrics
        shown = [name for name in ("train/loss", *(f"val/{n}" for n in _TOLD)) if name in figures]
        words = ", ".join(f"{name} {float(figures[name]):.3f}" for name in shown)
        left = (time.monotonic() - self.began) / (done - self.first) * (self.epochs - done)
        if trainer.is_global_zero:
            self.tell(f"epoch {done} of {self.epochs}: {words}; {_span(left)} left")


def _span(seconds: float) -> str:
    """
    >>> _span(42), _span(600), _span(7300)
    ('42 s', '10 min', '2 h 2 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv, one an epoch; none if it is not there yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_loop(
    learner: Learner,
    train: DataLoader[Any],
    held: DataLoader[Any],
    folder: Path,
    bar: bool,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Any] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Train to the recipe's end, from the folder's checkpoint if there is one. Raises TrainingError.

    train: its sampler is an Order, so that a run stopped within an epoch goes on where it was.  tell: gets a line an epoch.
    Afterwards `learner.kept` holds the weights to keep: the last ones, or the best ones if the recipe says so.
    """
    recipe, last = learner.recipe, folder / "last.ckpt"
    chosen, schedule = recipe.trainer, recipe.schedule
    order = train.sampler
    assert isinstance(order, Order)
    stopper = Stopper(folder, order, chosen)
    learner.after_step = stopper.after_step
    early = _Early(schedule)
    first = [*([_Monitor(schedule.monitor)] if recipe.monitors else []), *([early] if schedule.stop else [])]
    ours = [*callbacks, *first, _EpochLog(folder, recipe), stopper, _Teller(tell, schedule.epochs)]
    if chosen.compile:
        for part in (learner.network, *learner.teachers):
            part.compile()
    keep_memory()
    try:
        with quiet():
            trainer = _trainer(recipe, folder, ours, loggers, bar)
            trainer.log_every_n_steps = min(50, max(1, len(train)))
            trainer.fit(learner, train, held, ckpt_path=last if last.is_file() else None, weights_only=True)
    except (pickle.UnpicklingError, EOFError, zipfile.BadZipFile) as error:
        why = " ".join(str(error).split())[:200]
        raise TrainingError(f"{last}: damaged ({why}); delete it to start the run again") from error
    except RuntimeError as error:
        raise _advised(error, last, chosen) from error
    except OSError as error:
        if isinstance(error, MienError):
            raise
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); make room, then --resume"
        ) from error
    except SystemExit as error:  # what Lightning makes of an interrupt
        raise TrainingError(f"{folder}: interrupted; go on with --resume") from error
    if chosen.keep == "best" and trainer.is_global_zero:
        learner.kept.load_state_dict(load_file(folder / "best.safetensors"))


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advertisements, and without its advice where we know better: chips lie in memory, so workers would
    cost; Apple's GPUs are left out; every process judges all held-out rows, so nothing has to be reduced; Order goes on within an epoch."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for words in (
            "GPU available but not used",
            "does not have many workers",
            "sync_dist",
            "dataloader is not resumable",
            "LeafSpec",
            "no `val_dataloader`",
            "lr_scheduler.step",
        ):
            warnings.filterwarnings("ignore", f"(?s).*{words}")
        try:
            yield
        finally:
            logger.setLevel(level)


def _trainer(
    recipe: Recipe | DetectorRecipe, folder: Path, callbacks: list[Callback], loggers: Sequence[Any], bar: bool
) -> lightning.Trainer:
    chosen = recipe.trainer
    if chosen.strategy == "fsdp" and not torch.cuda.is_available():
        raise ConfigError("trainer.strategy: fsdp shards over GPUs and there is none here; use ddp")
    return lightning.Trainer(
        max_epochs=recipe.schedule.epochs,
        precision=chosen.precision,
        gradient_clip_val=chosen.clip or None,
        accumulate_grad_batches=chosen.accumulate,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=list(loggers) or False,
        enable_checkpointing=False,
        enable_progress_bar=bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        # Apple's processors know no float64, and in many versions of torch not all that augmentation does.
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=chosen.devices,
        num_nodes=chosen.nodes,
        strategy=_strategy(recipe),
        sync_batchnorm=chosen.devices * chosen.nodes > 1 and torch.cuda.is_available(),
        use_distributed_sampler=False,
        deterministic=chosen.deterministic or None,
    )


def _strategy(recipe: Recipe | DetectorRecipe) -> str:
    """DDP waits for every gradient, unless it is told that some never come: those of frozen stages, of an unused weight."""
    spare = isinstance(recipe, Recipe) and (recipe.network.freeze or recipe.loss.uncertainty)
    chosen = recipe.trainer
    ddp = chosen.strategy == "ddp" or (chosen.strategy == "auto" and chosen.devices * chosen.nodes > 1)
    return "ddp_find_unused_parameters_true" if ddp and spare else chosen.strategy


def _advised(error: RuntimeError, last: Path, chosen: TrainerSection) -> Exception:
    """The error with its next move if it is one that users meet, or itself."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in text or "not enough memory" in text:
        return TrainingError(
            f"memory ran out; lower trainer.batch (now {chosen.batch}) and raise trainer.accumulate (now "
            f"{chosen.accumulate}) by the same factor, then go on with --resume"
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return TrainingError(
            f"trainer.compile: torch.compile failed here ({text[:200]}); set trainer.compile=false, then go on"
        )
    if "StreamWriter failed" in text:  # what torch says of a full disk
        return OutputError(f"{last.parent}: the checkpoint cannot be written ({text[:120]}); make room, then --resume")
    if "loading state_dict" in text:
        return TrainingError(f"{last}: the checkpoint of another network: {text[:400]}")
    return error
