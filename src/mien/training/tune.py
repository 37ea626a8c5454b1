"""Searching for better settings of a recipe: a learning rate by a sweep, then trials that Optuna proposes.

OUT/recipe.yaml    the recipe that is searched around
OUT/chips.parquet  the chips of all trials
OUT/study.db       Optuna's study (SQLite): a search that was stopped goes on with --resume
OUT/trials/        recipe and metrics of each trial
OUT/best.yaml      the recipe with the best trial's settings, for `mien train`

All trials are judged by one measure: where that is val/loss, by the loss of the recipe that is searched around, whatever a trial
learns by.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import lightning
import msgspec
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.tuner import Tuner

from mien.errors import ConfigError, DataError, MienError, MissingExtra, TrainingError
from mien.files import whole_file
from mien.labels import LabelSet
from mien.models.network import build_network
from mien.recipe import Recipe, recipe_text, with_settings
from mien.sections import LEAST, LossSection
from mien.spec import strict
from mien.training.auxiliary import second_labels
from mien.training.chips import Progress, check_sources, training_chips, two_sides
from mien.training.dataset import ChipDataset, EpochSampler, check_rows, loader
from mien.training.folder import open_run
from mien.training.loop import Freezer, monitored, quiet, run_loop
from mien.training.losses import class_weights
from mien.training.module import ExpressionModule, check_sides
from mien.training.origins import forget
from mien.training.stop import Stopped

__all__ = ["Range", "Trial", "read_search", "tune"]

#: Of a study all of whose trials are judged by the recipe's loss.
_JUDGED = "judged alike"
#: Searched by default, besides the learning rate: decay, dropout and smoothing.
_USUAL = ("optimizer.decay=0.00001..0.3", "network.dropout=0..0.5", "loss.smoothing=0..0.2")
#: What decides which parts val/loss is the sum of.
_IN_LOSS = ("network.affect", "network.expression")
_SWEEP = 100


@dataclass(frozen=True)
class Range:
    """What a setting may be: any of `choices`, or a number from low to high, on a log scale where that spans decades; a whole
    one where both ends are int."""

    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: Any, name: str) -> Any:
        """Optuna's next proposal."""
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high)
        return trial.suggest_float(name, self.low, self.high, log=self.low > 0 and self.high >= 10 * self.low)


@dataclass(frozen=True)
class Trial:
    """A trial: its number, 'complete', 'pruned' or 'fail', the settings, the best monitored figure (NaN if there is none)."""

    number: int
    state: str
    settings: Mapping[str, Any]
    value: float


def read_search(words: Iterable[str]) -> dict[str, Range]:
    """Ranges from 'section.key=low..high' or 'section.key=a,b,c'. Raises ConfigError.

    >>> read_search(["optimizer.lr=1e-4..1e-2", "augment.mixup=0,0.2"])["augment.mixup"].choices
    (0, 0.2)
    """
    return dict(_range(word) for word in words)


def _range(word: str) -> tuple[str, Range]:
    address, equals, text = word.partition("=")
    try:
        if not equals or not address:
            raise ValueError
        if ".." not in text:
            return address, Range(choices=tuple(yaml.safe_load(part) for part in text.split(",")))
        low, high = (int(part) if part.lstrip("-").isdigit() else float(part) for part in text.split(".."))
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--search {word}: expected section.key=low..high or section.key=a,b,c") from error
    if not low < high:
        raise ConfigError(f"--search {word}: the first number must be less than the second")
    return address, Range(low, high)


def _checked(recipe: Recipe, words: Iterable[str]) -> dict[str, Range]:
    """Ranges as read_search gives them, the ends of the type that the setting has. Raises ConfigError also for what is no setting
    of a trial, and for values that it cannot have."""
    found = read_search(words)
    for name, one in found.items():
        if name.startswith(("data.", "crop.")):
            raise ConfigError(f"--search {name}: all trials share the same chips and labels; search other settings")
        if name == "schedule.monitor":
            raise ConfigError(f"--search {name}: trials are compared by it; choose one with --set {name}=accuracy")
        if name in _IN_LOSS and recipe.schedule.monitor == "loss":
            raise ConfigError(
                f"--search {name}: losses of trials that differ in it cannot be compared; "
                "compare by another figure, such as --set schedule.monitor=accuracy"
            )
        for value in one.choices or (one.low, one.high):
            _changed(recipe, {name: value})
        kind = _kind(name)
        if kind is float and not one.choices:
            found[name] = Range(float(one.low), float(one.high))
        elif kind is not int and not one.choices:
            raise ConfigError(f"--search {name}: takes certain values, no range; name them: {name}=a,b")
    return found


def _kind(name: str) -> Any:
    """The type of a setting that a recipe has."""
    kind: Any = Recipe
    for part in name.split("."):
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.name == part)
    return kind


def tune(
    recipe: Recipe,
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    trials: int = 20,
    search: Sequence[str] = (),
    resume: bool = False,
    threads: int | None = None,
    progress: Progress = lambda rows: rows,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Trial]:
    """Search until `trials` trials are done; the best is written to OUT/best.yaml. The best of `schedule.monitor` counts.

    search: settings and their ranges (see read_search); by default the learning rate around the recipe's and what a sweep
        suggests, decay, dropout and smoothing.
    Raises OutputError, DataError, ConfigError, TrainingError (stopped: go on with resume), MissingExtra.
    """
    _optuna()
    wanted = _checked(recipe, search)  # before anything is made or prepared
    places = [Path(place) for place in data]
    places, beside = check_sources(recipe, places, (Path(out) / "auxiliary.parquet").is_file())
    with open_run(Path(out), recipe, resume) as folder:
        torch.set_num_threads(threads or torch.get_num_threads())
        try:
            bench = _bench(recipe, places, beside, folder, progress, tell)
        except MienError:
            if not resume:
                forget(folder)
            raise
        study = _study(recipe, folder)
        space = wanted or _usual(recipe, study, bench, tell)
        left = trials - sum(one.state in {"complete", "pruned"} for one in _listed(study))
        study.optimize(lambda trial: bench.objective(recipe, trial, space, tell), n_trials=max(0, left))
        done = _listed(study)
        if all(one.state != "complete" for one in done):
            raise TrainingError(f"{folder}: no trial ended well; search around a smaller optimizer.lr")
        best = _changed(recipe, study.best_trial.params)
        named = msgspec.structs.replace(best, name=f"{recipe.name}-tuned")
        with whole_file(folder / "best.yaml", overwrite=True) as part:
            part.write_text(recipe_text(named), encoding="utf-8")
    return done


def _bench(
    recipe: Recipe, places: Sequence[Path], beside: Path, folder: Path, progress: Progress, tell: Callable[[str], None]
) -> _Bench:
    """What all trials share. Raises DataError, ConfigError where the recipe could not be trained, as `fit` does."""
    chips = training_chips(recipe, places, folder, progress, tell)
    learn, held = two_sides(chips, recipe)
    second = second_labels(recipe, beside, folder, chips.ids, tell)
    sides = [ChipDataset(side, auxiliary=second.targets(side.ids) if second else None) for side in (learn, held)]
    bench = _Bench(folder, chips.labels, *sides)
    bench.parts(recipe, recipe.loss)
    return bench


def _changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    words = [
        f"{name}={yaml.safe_dump(value).removesuffix('...' + chr(10)).strip()}" for name, value in settings.items()
    ]
    return strict(with_settings(msgspec.to_builtins(recipe), words), Recipe)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Searching settings needs optuna", "tune") from error
    return optuna


def _storage(path: Path) -> str:
    """A file as Optuna's storage, whatever letters its name has: in addresses ?, # and % mean something."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=path.absolute().as_uri(), query={"uri": "true"}).render_as_string()


def _study(recipe: Recipe, folder: Path) -> Any:
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=_storage(folder / "study.db"),
        study_name=recipe.name,
        direction="minimize" if recipe.schedule.monitor in LEAST else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        load_if_exists=True,
    )
    if not study.trials:
        study.set_user_attr(_JUDGED, True)
    elif not study.user_attrs.get(_JUDGED) and any(
        name.startswith("loss.") for one in study.trials for name in one.params
    ):
        raise ConfigError(
            f"{folder}: its trials were each judged by their own loss, by an earlier mien; begin the search anew"
        )
    study.sampler = optuna.samplers.TPESampler(seed=recipe.seed + len(study.trials))
    for one in study.trials:
        if one.state == optuna.trial.TrialState.RUNNING:  # of a process that is no more
            study.tell(one.number, state=optuna.trial.TrialState.FAIL)
    return study


def _listed(study: Any) -> list[Trial]:
    return [
        Trial(t.number, t.state.name.lower(), t.params, math.nan if t.value is None else t.value) for t in study.trials
    ]


def _usual(recipe: Recipe, study: Any, bench: _Bench, tell: Callable[[str], None]) -> dict[str, Range]:
    """What is searched where nobody says what."""
    if "rate" not in study.user_attrs:
        study.set_user_attr("rate", bench.rate(recipe))
    rate = study.user_attrs["rate"]
    tell(f"learning rate: the sweep suggests {rate:.2g} (the recipe has {recipe.optimizer.lr:.2g})")
    both = rate, recipe.optimizer.lr
    return {"optimizer.lr": Range(min(both) / 3, max(both) * 3), **_checked(recipe, _USUAL)}


@dataclass(frozen=True)
class _Bench:
    """What all trials share."""

    folder: Path
    labels: LabelSet
    learn: ChipDataset
    held: ChipDataset

    def parts(self, recipe: Recipe, judge: LossSection) -> tuple[ExpressionModule, Any, Any]:
        """What learns, what it learns from, what judges it. Raises DataError, ConfigError where the recipe cannot be trained."""
        check_rows(self.learn, self.labels, recipe)
        with quiet():
            lightning.seed_everything(recipe.seed, workers=True, verbose=False)
        second = self.learn.auxiliary
        network = build_network(recipe.network, self.labels, recipe.crop, second.shape[1])
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        check_sides(network, recipe)
        balance, others = (
            class_weights(targets, recipe.loss.balance, recipe.loss.effective) if targets.shape[1] else None
            for targets in (self.learn.targets, second)
        )
        assert balance is not None
        learner = ExpressionModule(network, recipe, balance, auxiliary=others, judge=judge)
        sampler = EpochSampler(self.learn.targets, recipe.data, recipe.seed, learner.place)
        return learner, loader(self.learn, recipe.trainer.batch, sampler), loader(self.held, 512)

    def rate(self, recipe: Recipe) -> float:
        """The learning rate at the steepest fall of the loss in a sweep (Smith 2017, arXiv:1506.01186; Lightning's finder);
        the recipe's own where the sweep shows none."""
        level = msgspec.structs.replace(
            recipe.schedule, name="constant", warmup=0
        )  # a plateau's warm-up would set its own rates
        learner, train, _ = self.parts(msgspec.structs.replace(recipe, schedule=level), recipe.loss)
        learner.lr = recipe.optimizer.lr  # what Lightning's finder looks for
        with quiet(), redirect_stderr(StringIO()):  # the finder's bar cannot be switched off
            trainer = lightning.Trainer(
                max_epochs=_SWEEP,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=self.folder,
            )
            try:
                found = Tuner(trainer).lr_find(learner, train, min_lr=1e-6, num_training=_SWEEP, update_attr=False)
            except TrainingError:  # the loss was no number before it had grown: no sweep
                return recipe.optimizer.lr
        suggested = found.suggestion() if found is not None else None
        return float(suggested) if suggested else recipe.optimizer.lr

    def objective(self, recipe: Recipe, trial: Any, space: Mapping[str, Range], tell: Callable[[str], None]) -> float:
        """The best monitored figure of one trial, its loss that of `recipe`; Optuna may end it early."""
        import optuna

        changed = _changed(recipe, {name: one.suggest(trial, name) for name, one in space.items()})
        watch = _Watch(trial, changed.schedule.monitor)
        with open_run(self.folder / "trials" / f"{trial.number:04d}", changed, resume=False) as place:
            try:
                learner, train, held = self.parts(changed, recipe.loss)
            except (ConfigError, DataError) as error:  # settings that do not go together, a batch larger than the rows
                tell(f"trial {trial.number}: {error}")
                raise optuna.TrialPruned from error
            try:
                run_loop(learner, train, held, place, False, [Freezer(changed.network), watch])
            except Stopped:
                raise
            except TrainingError as error:
                tell(f"trial {trial.number}: {error}")
                raise optuna.TrialPruned from error
            finally:
                (place / "last.ckpt").unlink(missing_ok=True)
        tell(f"trial {trial.number}: best val/{watch.monitor} {watch.best:.4f} with {_said(trial.params)}")
        return watch.best


def _said(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items())


class _Watch(Callback):
    """Tells Optuna the monitored figure of each epoch, and ends a trial that Optuna gives up."""

    def __init__(self, trial: Any, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.best = math.inf if monitor in LEAST else -math.inf

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        import optuna

        loss = float(trainer.callback_metrics["val/loss"])
        if not math.isfinite(loss):
            raise TrainingError(f"epoch {trainer.current_epoch}: the held-out rows' loss is {loss}")
        value = monitored(trainer, self.monitor)
        self.best = min(self.best, value) if self.monitor in LEAST else max(self.best, value)
        self.trial.report(value, trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned
