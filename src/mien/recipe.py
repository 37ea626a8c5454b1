"""Recipes: one flat YAML file says everything we ask training for. No torch here.

No inheritance, no interpolation, no paths: what differs between machines (folders, devices) is given on the
command line. An unknown key, a wrong type or an unknown word is a ConfigError with a dotted address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from mien.errors import ConfigError, near_miss
from mien.labels import label_set
from mien.spec import Affect, CropSpec, strict

__all__ = [
    "AugmentSection",
    "DataSection",
    "DetectorLossSection",
    "DetectorNetworkSection",
    "DetectorRecipe",
    "LookSection",
    "LossSection",
    "NetworkSection",
    "OptimizerSection",
    "Recipe",
    "ScenesSection",
    "ScheduleSection",
    "TrainerSection",
    "load_recipe",
    "recipe_names",
    "recipe_text",
    "with_settings",
]

#: How FER+ votes become a target; see mien.data.sources.ferplus.
Rule = Literal["majority", "distribution", "plain"]


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low} to {high}, got {value}")


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a recipe."""


class DataSection(_Section, frozen=True):
    """Which rows, and what their labels mean.

    sources: dataset sources by name (`mien.data.sources.SOURCES`); their rows are put one after another.
    labels: a known label set by name, or the names themselves.
    rule: for vote data: how votes become a target distribution.
    validation: share of the train split held out (seeded, identical images kept together) for curves and
        temperature; 0 uses the dataset's own validation split for that.
    """

    sources: tuple[str, ...]
    labels: str | tuple[str, ...] = "affectnet8"
    rule: Rule = "distribution"
    validation: float = 0.04

    def __post_init__(self) -> None:
        label_set(self.labels)
        _within("validation", self.validation, 0, 0.5)


class NetworkSection(_Section, frozen=True):
    """backbone: a name in `mien.models.backbones.BACKBONES`; affect: see ModelSpec; dropout: before the head;
    mirror: outside training, averages the logits of a chip and its mirror image, inside the graph (twice the work)."""

    backbone: str = "mien-small"
    affect: Affect = "circumplex"
    dropout: float = 0.0
    mirror: bool = False

    def __post_init__(self) -> None:
        _within("dropout", self.dropout, 0, 0.95)


class LossSection(_Section, frozen=True):
    """expression: 'soft_cross_entropy' against the target distribution; smoothing mixes the target with uniform;
    balance: weights each class by its inverse frequency to this power (0 none, 1 fully balanced)."""

    expression: Literal["soft_cross_entropy"] = "soft_cross_entropy"
    smoothing: float = 0.0
    balance: float = 0.0

    def __post_init__(self) -> None:
        _within("smoothing", self.smoothing, 0, 0.9)
        _within("balance", self.balance, 0, 1)


class AugmentSection(_Section, frozen=True):
    """Random changes of a training chip; 0 switches one off.

    flip: probability of a mirror image.  rotate: largest turn, degrees.  scale: largest change of size, 0.1 = 10 %.
    shift: largest move, as a share of the side.  light: largest change of gain and contrast, 0.3 = 30 %.
    blur, noise: probability of a mild Gaussian blur, of Gaussian noise.
    erase: probability of one grey box of 2 to 20 % of the area.
    mixup: alpha of the Beta distribution by which two chips and their targets are mixed.
    """

    flip: float = 0.5
    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    light: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "blur", "noise", "erase"):
            _within(name, getattr(self, name), 0, 1)
        _within("rotate", self.rotate, 0, 180)
        _within("scale", self.scale, 0, 0.9)
        _within("shift", self.shift, 0, 0.5)
        _within("light", self.light, 0, 0.95)
        _within("mixup", self.mixup, 0, 10)


class OptimizerSection(_Section, frozen=True):
    """name; lr: the largest learning rate; decay: weight decay (not on biases and norms); momentum: for sgd."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 0.001
    decay: float = 0.05
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _within("lr", self.lr, 0, 100)
        _within("decay", self.decay, 0, 10)
        _within("momentum", self.momentum, 0, 1)


class ScheduleSection(_Section, frozen=True):
    """name: 'cosine' falls to 0 over the epochs; 'constant'.  warmup: epochs of linear rise first."""

    name: Literal["cosine", "constant"] = "cosine"
    epochs: int = 30
    warmup: float = 1.0

    def __post_init__(self) -> None:
        _within("epochs", self.epochs, 1, 100_000)
        _within("warmup", self.warmup, 0, self.epochs)


class TrainerSection(_Section, frozen=True):
    """batch: chips a step.  precision: Lightning's word.  ema: decay of the averaged weights (0 none), which are
    the ones kept.  clip: largest gradient norm (0 none)."""

    batch: int = 128
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    ema: float = 0.999
    clip: float = 0.0

    def __post_init__(self) -> None:
        _within("batch", self.batch, 1, 65_536)
        _within("ema", self.ema, 0, 0.999_99)
        _within("clip", self.clip, 0, 1e6)


class Recipe(_Section, frozen=True):
    """The whole truth about a training, but for the places of files. The same recipe and seed give the same run."""

    name: str
    data: DataSection
    crop: CropSpec
    about: str = ""
    seed: int = 0
    network: NetworkSection = NetworkSection()
    loss: LossSection = LossSection()
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    trainer: TrainerSection = TrainerSection()


class ScenesSection(_Section, frozen=True):
    """The composed scenes from which a face detector learns (mien.data.scenes).

    size: side of a scene, a multiple of 64.  count: scenes.  held: scenes of held-out heads and grounds, for the curve.
    hard: share of an epoch that shows again the scenes on which the network raised the worst false alarms.
    """

    size: int = 256
    count: int = 60_000
    held: int = 1000
    hard: float = 0.2

    def __post_init__(self) -> None:
        if self.size % 64 or not 64 <= self.size <= 1024:
            raise ValueError(f"size: expected a multiple of 64 up to 1024, got {self.size}")
        _within("count", self.count, 8, 10_000_000)
        _within("held", self.held, 8, 100_000)
        _within("hard", self.hard, 0, 0.9)


class DetectorNetworkSection(_Section, frozen=True):
    """See mien.models.face.FaceNetwork.  convolution: 'dense' 3x3, or 'depthwise' 3x3 and 1x1."""

    widths: tuple[int, int, int, int] = (16, 32, 64, 64)
    depths: tuple[int, int, int] = (2, 2, 3)
    convolution: Literal["dense", "depthwise"] = "dense"

    def __post_init__(self) -> None:
        for width in self.widths:
            _within("widths", width, 1, 1024)
        for depth in self.depths:
            _within("depths", depth, 1, 32)


class LookSection(_Section, frozen=True):
    """How the detector's file asks to be used.  long_side: to which a picture's long side is shrunk by default, pixels.
    largest: the largest face that one look finds, in pixels; longer looks are joined by a second, small one."""

    long_side: int = 320
    largest: float = 320.0

    def __post_init__(self) -> None:
        _within("long_side", self.long_side, 64, 8192)
        _within("largest", self.largest, 16, 8192)


class DetectorLossSection(_Section, frozen=True):
    """focus: power by which a score's error weights its cross-entropy (0 plain).  box, landmarks: weights of the mean
    absolute errors, in units of the face's size, beside the score's loss."""

    focus: float = 2.0
    box: float = 2.0
    landmarks: float = 2.0

    def __post_init__(self) -> None:
        _within("focus", self.focus, 0, 5)
        _within("box", self.box, 0, 100)
        _within("landmarks", self.landmarks, 0, 100)


class DetectorRecipe(_Section, frozen=True):
    """The whole truth about the training of a face detector by distillation: the section `scenes` tells it from a
    Recipe. Of `augment`, flip, light, blur and noise apply; what else scenes suffer is composed into them."""

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
        for name in ("rotate", "scale", "shift", "erase", "mixup"):
            if getattr(self.augment, name):
                raise ValueError(f"augment.{name}: not for detectors; scenes are composed with it")


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
    text, where = _find(str(name))
    try:
        plain = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{where}: a recipe is a mapping of sections, this is {type(plain).__name__}")
    plain = with_settings(plain, settings)
    return strict(plain, DetectorRecipe) if "scenes" in plain else strict(plain, Recipe)


def _find(name: str) -> tuple[str, str]:
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
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
        section[key] = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    return changed


def recipe_text(recipe: Recipe | DetectorRecipe) -> str:
    """The resolved recipe as YAML, every default written out; `load_recipe` reads it back to an equal value."""
    return yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False, default_flow_style=None, width=110)
