"""Recipes: one flat YAML file says everything we ask training for. No torch here.

No inheritance, no interpolation, no paths: what differs between machines (folders, devices) is given on the
command line. An unknown key, a wrong type or an unknown word is a ConfigError with a dotted address.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mien.errors import ConfigError, near_miss
from mien.sections import (
    LEAST,
    AugmentSection,
    DataSection,
    DetectorLossSection,
    DetectorNetworkSection,
    DistilSection,
    LookSection,
    LossSection,
    NetworkSection,
    OptimizerSection,
    QuantizeSection,
    ScenesSection,
    ScheduleSection,
    Section,
    TrainerSection,
)
from mien.spec import CropSpec, strict

__all__ = [
    "DetectorRecipe",
    "Recipe",
    "kept_epoch",
    "load_recipe",
    "read_recipe",
    "recipe_names",
    "recipe_text",
    "run_facts",
    "with_settings",
]


class Recipe(Section, frozen=True):
    """The whole truth about a training, but for the places of files. The same recipe and seed give the same run."""

    name: str
    data: DataSection
    crop: CropSpec
    about: str = ""
    seed: int = 0
    network: NetworkSection = NetworkSection()
    loss: LossSection = LossSection()
    distil: DistilSection = DistilSection()
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    trainer: TrainerSection = TrainerSection()
    quantize: QuantizeSection = QuantizeSection()

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check_sam(self.optimizer, self.trainer)
        if self.quantize.bits and self.trainer.compile:
            raise ValueError("trainer.compile: not with quantize.bits; leave one out")
        monitor, network = self.schedule.monitor, self.network
        if self.schedule.sides and network.pool in {"flatten", "own"}:
            raise ValueError(
                f"schedule.sides: a network with pool: {network.pool} takes chips of one size; leave it out"
            )
        if self.data.auxiliary != "none" and not network.expression:
            raise ValueError("data.auxiliary: a second expression head needs the first; set network.expression: true")
        if self.monitors and monitor in {"ccc", "rmse"} and network.affect != "trained":
            raise ValueError(f"schedule.monitor: {monitor!r} needs network.affect: trained")
        if self.monitors and monitor in {"accuracy", "macro_f1", "auroc"} and not network.expression:
            raise ValueError(f"schedule.monitor: {monitor!r} needs an expression head")

    @property
    def monitors(self) -> bool:
        """Whether training depends on the monitored figure."""
        return _monitors(self.schedule, self.trainer)


def _monitors(schedule: ScheduleSection, trainer: TrainerSection) -> bool:
    return bool(schedule.stop) or schedule.name == "plateau" or trainer.keep == "best"


def _check_sam(optimizer: OptimizerSection, trainer: TrainerSection) -> None:
    """Its second pass repeats one batch, and its gradient must not be scaled."""
    if optimizer.sam and trainer.accumulate > 1:
        raise ValueError("optimizer.sam: not with trainer.accumulate; raise trainer.batch instead")
    if optimizer.sam and trainer.precision == "16-mixed":
        raise ValueError("optimizer.sam: not with trainer.precision: 16-mixed; use bf16-mixed")


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: expected a number from 0 to 4294967295, got {seed}")


class DetectorRecipe(Section, frozen=True):
    """The whole truth about the training of a face detector by distillation: the section `scenes` tells it from a
    Recipe. Of `augment`, flip, light, dark, blur and noise apply; what else scenes suffer is composed into them."""

    name: str
    scenes: ScenesSection
    about: str = ""
    seed: int = 0
    network: DetectorNetworkSection = DetectorNetworkSection()
    loss: DetectorLossSection = DetectorLossSection()
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    trainer: TrainerSection = TrainerSection()
    look: LookSection = LookSection()

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check_sam(self.optimizer, self.trainer)
        for name, value in msgspec.structs.asdict(self.augment).items():
            if value and name not in {"flip", "light", "dark", "blur", "noise"}:
                raise ValueError(f"augment.{name}: not for detectors; scenes are composed with it")
        if self.schedule.sides:
            raise ValueError("schedule.sides: not for detectors; leave it out")

    @property
    def monitors(self) -> bool:
        """Whether training depends on the monitored figure."""
        return _monitors(self.schedule, self.trainer)


def kept_epoch(recipe: Recipe | DetectorRecipe, epochs: Sequence[Mapping[str, str]]) -> int:
    """Which line of a run's metrics.csv (one an epoch, from 0) is of the weights that the run keeps.

    The last one; with `trainer.keep: best` the best by `schedule.monitor`, the first of equal ones.
    """
    last, name = len(epochs) - 1, f"val/{recipe.schedule.monitor}"
    if recipe.trainer.keep != "best":
        return last
    sign = -1 if recipe.schedule.monitor in LEAST else 1
    found = [(sign * float(line.get(name) or "nan"), -row) for row, line in enumerate(epochs)]
    return -max(((score, row) for score, row in found if not math.isnan(score)), default=(0.0, -last))[1]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as YAML 1.2 does, and refuses a key given twice."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"), list("-+0123456789.")
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{key}: given twice (line {node.start_mark.line + 1} and below)")
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def recipe_names() -> list[str]:
    """The recipes inside the package, by name."""
    folder = resources.files("mien") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_recipe(name: str | Path, settings: Iterable[str] = ()) -> Recipe | DetectorRecipe:
    """A recipe from its name in the package or from a YAML file, with `section.key=value` settings on top.

    Raises ConfigError: an unknown name, a file that is no YAML mapping, or a key, type or word that is wrong.
    """
    return read_recipe(*_find(str(name)), settings)


def read_recipe(text: str, where: str, settings: Iterable[str] = ()) -> Recipe | DetectorRecipe:
    """A recipe from its YAML; `where` is the file's name, for errors. Raises ConfigError as load_recipe does."""
    try:
        plain = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{where}: a recipe is a mapping of sections, this is {type(plain).__name__}")
    settings = list(settings)
    plain = with_settings(plain, settings)
    try:
        return strict(plain, DetectorRecipe) if "scenes" in plain else strict(plain, Recipe)
    except ConfigError as error:
        raise error if settings else ConfigError(f"{where}: {error}") from None


def _find(name: str) -> tuple[str, str]:
    path = Path(name)
    if path.suffix.lower() in {".yaml", ".yml"} or path.is_file():
        try:
            return path.read_text(encoding="utf-8"), name
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{name}: cannot be read as a recipe ({error})") from error
    if name not in recipe_names():
        raise ConfigError(f"{name}: no recipe of that name; {near_miss(name, recipe_names())}")
    return (resources.files("mien") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"), name


def with_settings(plain: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A copy of plain recipe data with `section.key=value` settings applied; values are read as YAML.

    >>> with_settings({"optimizer": {"lr": 0.1}}, ["optimizer.lr=3e-4"])
    {'optimizer': {'lr': 0.0003}}
    """
    changed = msgspec.json.decode(msgspec.json.encode(plain))
    for setting in settings:
        address, equals, text = setting.partition("=")
        if not equals or not address:
            raise ConfigError(f"{setting}: expected section.key=value")
        section = changed
        *path, key = address.split(".")
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError(f"{address}: {part} is a value, not a section")
        try:
            section[key] = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            raise ConfigError(f"{address}: not YAML: {' '.join(str(error).split())}") from error
    return changed


def run_facts(folder: Path) -> dict[str, Any]:
    """What a run's environment.json says; nothing where there is none. Raises ConfigError: it cannot be read."""
    path = folder / "environment.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.is_file() else {}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: is damaged ({error}); put it back from a copy, or delete it: then nobody knows what the run started from"
        ) from error


def recipe_text(recipe: Recipe | DetectorRecipe) -> str:
    """The resolved recipe as YAML, every default written out; `load_recipe` reads it back to an equal value."""
    return yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False, default_flow_style=None, width=110)
