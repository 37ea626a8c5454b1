"""The sections of recipes: typed, strict, each documented where it is defined. No torch here."""

from __future__ import annotations

from typing import Literal

import msgspec

from mien.labels import label_set
from mien.spec import Affect

__all__ = [
    "LEAST",
    "AugmentSection",
    "DataSection",
    "DetectorLossSection",
    "DetectorNetworkSection",
    "DistilSection",
    "LookSection",
    "LossSection",
    "NetworkSection",
    "OptimizerSection",
    "QuantizeSection",
    "ScenesSection",
    "ScheduleSection",
    "Section",
    "TrainerSection",
]

#: Monitored figures of which less is better.
LEAST = ("loss", "rmse")
#: How FER+ votes become a target; see mien.data.sources.ferplus.
Rule = Literal["majority", "distribution", "plain"]


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low} to {high}, got {value}")


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a recipe."""


class DataSection(Section, frozen=True):
    """Which rows, and what their labels mean.

    sources: dataset sources by name (`mien data list`); one of them, or a manifest's file given with --data in its place.
    labels: a known label set by name, or the names themselves. Rows of other labels are left out.
    rule: for vote data: how votes become a target distribution.
    validation: share of the train split held out (identical images kept together) for curves, early stopping and
        temperature; 0 uses the dataset's own validation split for that.
    fold: which rows are held out: 0 for the first share of them, 1 for the next. Folds share no row, and together are all
        rows where 1 / validation is a whole number. They depend on the chips alone (the same crop, the same rows), not on
        `seed`, so that several seeds are judged on the same rows.
    auxiliary: another source with labels of the same pictures (as ferplus has for fer2013's), at the first source's place or that of one more --data: a
        second expression head learns them beside the first and helps the layers that both share; it is kept in a file of
        its own. 'none' learns the first alone.
    sampler: 'shuffle' shows every row once an epoch; 'balanced' draws as many rows as there are, each class equally
        often; 'capped' draws at most `cap` rows of each class.  cap: rows of a class.
    """

    sources: tuple[str, ...]
    labels: str | tuple[str, ...] = "affectnet8"
    rule: Rule = "distribution"
    validation: float = 0.04
    fold: int = 0
    auxiliary: str = "none"
    sampler: Literal["shuffle", "balanced", "capped"] = "shuffle"
    cap: int = 1000

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources: is empty; name one of `mien data list`")
        label_set(self.labels)
        _within("validation", self.validation, 0, 0.5)
        if self.fold and not self.validation:
            raise ValueError("fold: needs validation above 0; 0 takes the dataset's own validation split")
        if self.validation:
            _within("validation", self.validation, 1e-6, 0.5)
            _within("fold", self.fold, 0, int(1 / self.validation + 1e-9) - 1)
        _within("cap", self.cap, 1, 10_000_000)


class NetworkSection(Section, frozen=True):
    """Backbone, pooling, hidden layers, heads.

    backbone: a name in `mien.models.backbones.BACKBONES`, or timm:NAME for any of timm's.
    pretrained: timm's own weights, fetched by timm from its hub.
    channels: 1 (luminance) or 3; 0 takes 1 for grey chips and our small backbones, else 3.
    pool: how the feature map becomes a vector: 'average', 'max', 'average-max' (their mean), 'gem' (generalised mean with
        a learned power; Radenovic et al. 2018, arXiv:1711.02512), 'flatten', or 'own' (as the timm model does it).
    hidden: sizes of linear layers before the heads.  activation: after each.
    dropout: before the heads.
    freeze: stages of the backbone that keep their weights, from the first one on; -1 all. A stage is a convolution and its
        residual blocks in our residual networks, a convolution in cnn and fcn, and a child of a timm model or a part of
        one that lists them (a stage of ConvNeXt, a block of ViT); norms and activations belong to the stage before.
    unfreeze: epochs after which one more frozen stage, from the last one on, begins to learn; 0 never.
    expression: whether there is a head for the labels.
    affect: 'trained' (a head for valence and arousal), 'circumplex' or 'none'; see ModelSpec.
    mirror: outside training, averages the answers for a chip and its mirror image, inside the graph (twice the work).
    """

    backbone: str = "mien-small"
    pretrained: bool = False
    channels: Literal[0, 1, 3] = 0
    pool: Literal["average", "max", "average-max", "gem", "flatten", "own"] = "average"
    hidden: tuple[int, ...] = ()
    activation: Literal["relu", "leaky-relu", "silu", "gelu"] = "relu"
    dropout: float = 0.0
    freeze: int = 0
    unfreeze: int = 0
    expression: bool = True
    affect: Affect = "circumplex"
    mirror: bool = False

    def __post_init__(self) -> None:
        _within("dropout", self.dropout, 0, 0.95)
        _within("freeze", self.freeze, -1, 1000)
        _within("unfreeze", self.unfreeze, 0, 100_000)
        for width in self.hidden:
            _within("hidden", width, 1, 65_536)
        if not self.expression and self.affect != "trained":
            raise ValueError("affect: a network without an expression head needs affect: trained")


class LossSection(Section, frozen=True):
    """What is minimised; rows without a label or without affect count nothing for that part.

    expression: 'soft_cross_entropy' against the target distribution, or 'focal', which weights it by
        (1 - probability of the target)**focus (Lin et al. 2017, arXiv:1708.02002).
    focus: focal's power.  smoothing: mixes the target with uniform.
    balance: weights each class by its inverse frequency to this power (0 none, 1 fully balanced).
    effective: weights each class by the inverse of its effective number (1 - b**n) / (1 - b), b this number (0 none;
        Cui et al. 2019, arXiv:1901.05555).
    affect: 'mse', 'ccc' (1 - concordance over the batch, mean of both) or 'mse+ccc'.
    weight: of the affect loss beside the expression loss.
    auxiliary: of the loss of the head for `data.auxiliary`.
    uncertainty: learn the weights of these two instead, not `auxiliary` (Kendall et al. 2018, arXiv:1705.07115).
    """

    expression: Literal["soft_cross_entropy", "focal"] = "soft_cross_entropy"
    focus: float = 2.0
    smoothing: float = 0.0
    balance: float = 0.0
    effective: float = 0.0
    affect: Literal["mse", "ccc", "mse+ccc"] = "mse+ccc"
    weight: float = 1.0
    auxiliary: float = 1.0
    uncertainty: bool = False

    def __post_init__(self) -> None:
        _within("focus", self.focus, 0, 10)
        _within("smoothing", self.smoothing, 0, 0.9)
        _within("balance", self.balance, 0, 1)
        _within("effective", self.effective, 0, 0.999_999_9)
        if self.balance and self.effective:
            raise ValueError("effective: weighs classes instead of balance; leave one out")
        _within("weight", self.weight, 0, 1000)
        _within("auxiliary", self.auxiliary, 0, 1000)


class DistilSection(Section, frozen=True):
    """Learning from teachers: `--teacher RUN`, or `--teacher TABLE` of predictions by row; of several the mean is taken.

    weight: share of the teachers in the expression target; the labels keep the rest.
    temperature: that softens both sides (Hinton et al. 2015, arXiv:1503.02531).
    """

    weight: float = 0.7
    temperature: float = 2.0

    def __post_init__(self) -> None:
        _within("weight", self.weight, 0, 1)
        _within("temperature", self.temperature, 0.1, 100)


class AugmentSection(Section, frozen=True):
    """Random changes of a training chip; 0 switches one off.

    flip: probability of a mirror image.  rotate: largest turn, degrees.  scale: largest change of size, 0.1 = 10 %.
    shift: largest move, as a share of the side.
    light: largest change of gain and contrast, 0.3 = 30 %.  colour: largest change of each channel's gain.
    invert, clahe, jpeg, dark, blur, noise: probability of a negative, of local contrast equalisation, of JPEG artefacts
        (quality 20 to 80), of low light (a quarter to a tenth), of a mild Gaussian blur, of Gaussian noise.
    erase: probability of one grey box of 2 to 20 % of the area.
    unmake: probability of a chip that is no face any more (shuffled tiles, or a small part enlarged) and is to be read as
        every class alike.
    randaugment: random operations of torchvision's RandAugment a chip (Cubuk et al. 2020, arXiv:1909.13719).
    mixup, cutmix: alpha of the Beta distribution by which two chips, or a box of one in the other, and their targets are
        mixed (Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899); with both, one of them a batch.
    """

    flip: float = 0.5
    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    light: float = 0.0
    colour: float = 0.0
    invert: float = 0.0
    clahe: float = 0.0
    jpeg: float = 0.0
    dark: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    unmake: float = 0.0
    randaugment: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "invert", "clahe", "jpeg", "dark", "blur", "noise", "erase", "unmake"):
            _within(name, getattr(self, name), 0, 1)
        _within("rotate", self.rotate, 0, 180)
        _within("scale", self.scale, 0, 0.9)
        _within("shift", self.shift, 0, 0.5)
        _within("light", self.light, 0, 0.95)
        _within("colour", self.colour, 0, 0.95)
        _within("randaugment", self.randaugment, 0, 10)
        _within("mixup", self.mixup, 0, 10)
        _within("cutmix", self.cutmix, 0, 10)


class OptimizerSection(Section, frozen=True):
    """name; lr: the largest learning rate; decay: weight decay (not on biases and norms); momentum: for sgd.

    backbone: factor on the backbone's rate beside the heads'.  layers: factor from each backbone stage to the one before.
    sam: radius of sharpness-aware minimisation around `name` (Foret et al. 2021, arXiv:2010.01412; two passes a step);
        0 none.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 0.001
    decay: float = 0.05
    momentum: float = 0.9
    backbone: float = 1.0
    layers: float = 1.0
    sam: float = 0.0

    def __post_init__(self) -> None:
        _within("lr", self.lr, 0, 100)
        _within("decay", self.decay, 0, 10)
        _within("momentum", self.momentum, 0, 1)
        _within("backbone", self.backbone, 0, 100)
        _within("layers", self.layers, 0, 1)
        _within("sam", self.sam, 0, 10)


class ScheduleSection(Section, frozen=True):
    """name: 'cosine' falls to 0 over the epochs; 'one-cycle' rises over the warm-up and falls like a cosine; 'step' times
    `factor` every `every` epochs; 'plateau' times `factor` when `monitor` has not improved for `patience` epochs;
    'constant'.

    warmup: epochs of linear rise first.  monitor: 'loss' or 'rmse' (less is better), 'accuracy', 'macro_f1', 'auroc' or
    'ccc' (rmse and ccc: mean of valence and arousal), on held-out rows.
    stop: epochs without improvement of `monitor` after which training ends; 0 never.
    sides: shares of the crop's side at which chips are shown in equal parts of the epochs, e.g. [0.67, 0.83, 1]: small chips first
        cost less (M. Tan, Q. Le 2021, arXiv:2104.00298); () always shows them whole.
    """

    name: Literal["cosine", "one-cycle", "step", "plateau", "constant"] = "cosine"
    epochs: int = 30
    warmup: float = 1.0
    factor: float = 0.5
    every: int = 10
    patience: int = 3
    monitor: Literal["loss", "accuracy", "macro_f1", "auroc", "ccc", "rmse"] = "loss"
    stop: int = 0
    sides: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _within("epochs", self.epochs, 1, 100_000)
        _within("warmup", self.warmup, 0, self.epochs)
        _within("factor", self.factor, 0.0001, 1)
        _within("every", self.every, 1, 100_000)
        _within("patience", self.patience, 0, 100_000)
        _within("stop", self.stop, 0, 100_000)
        for share in self.sides:
            _within("sides", share, 0.1, 1)
        if self.sides and self.sides[-1] != 1:
            raise ValueError(f"sides: the last must be 1, the whole chip; got {self.sides[-1]:g}")
        if len(self.sides) > self.epochs:
            raise ValueError(
                f"sides: {len(self.sides)} of them and only {self.epochs} epochs; raise schedule.epochs or leave them out (--set "
                "'schedule.sides=[]')"
            )

    def side(self, epoch: int) -> float:
        """The share of the side at which an epoch (from 0) shows its chips.

        >>> [ScheduleSection(epochs=4, sides=(0.5, 1)).side(epoch) for epoch in range(4)]
        [0.5, 0.5, 1, 1]
        """
        return self.sides[min(epoch * len(self.sides) // self.epochs, len(self.sides) - 1)] if self.sides else 1.0


class TrainerSection(Section, frozen=True):
    """batch: chips a step and device.  precision, devices, nodes, strategy: Lightning's words ('auto', 'ddp', 'fsdp').
    accumulate: batches whose gradients are summed into one step.  ema: decay of the averaged weights at each step (0
        none), which are then the ones kept; the average follows faster in the first steps.
    clip: largest gradient norm (0 none).
    keep: 'last' keeps the weights of the last epoch, 'best' those of the epoch with the best `schedule.monitor`.
    compile: torch.compile.  deterministic: refuse operations whose result may vary from run to run.
    """

    batch: int = 128
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accumulate: int = 1
    ema: float = 0.999
    clip: float = 0.0
    keep: Literal["last", "best"] = "last"
    compile: bool = False
    deterministic: bool = False
    devices: int = 1
    nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"

    def __post_init__(self) -> None:
        _within("batch", self.batch, 1, 65_536)
        _within("accumulate", self.accumulate, 1, 100_000)
        _within("ema", self.ema, 0, 0.999_99)
        _within("clip", self.clip, 0, 1e6)
        _within("devices", self.devices, 1, 1024)
        _within("nodes", self.nodes, 1, 1024)


class QuantizeSection(Section, frozen=True):
    """Training that feels the rounding of an int8 file (mien.training.rounding), to be started from a trained run.

    bits: of what goes into a layer; 0 trains without rounding.  weights: bits of the weights; 7 as `mien export --to onnx-int8` does.
    The run's weights stay in float, and held-out rows are judged in float; the export rounds, and judges what it rounded.
    """

    bits: int = 0
    weights: int = 7

    def __post_init__(self) -> None:
        if self.bits and not 2 <= self.bits <= 8:
            raise ValueError(f"bits: expected 0 or a number from 2 to 8, got {self.bits}")
        _within("weights", self.weights, 2, 8)


class ScenesSection(Section, frozen=True):
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


class DetectorNetworkSection(Section, frozen=True):
    """See mien.models.face.FaceNetwork.  convolution: 'dense' 3x3, or 'depthwise' 3x3 and 1x1.  early: blocks at stride 4."""

    widths: tuple[int, int, int, int, int] = (16, 32, 64, 64, 64)
    depths: tuple[int, int, int] = (3, 3, 2)
    early: int = 1
    convolution: Literal["dense", "depthwise"] = "depthwise"

    def __post_init__(self) -> None:
        for width in self.widths:
            _within("widths", width, 1, 1024)
        for depth in self.depths:
            _within("depths", depth, 1, 32)
        _within("early", self.early, 1, 32)


class LookSection(Section, frozen=True):
    """How the detector's file asks to be used.  long_side: to which a picture's long side is shrunk by default, pixels.
    largest: the largest face that one look finds, in pixels; longer looks are joined by a second, small one.
    recall: share of the teacher's sure faces on held scenes that must be found: the highest threshold that does so is
        taken."""

    long_side: int = 384
    largest: float = 400.0
    recall: float = 0.98

    def __post_init__(self) -> None:
        _within("long_side", self.long_side, 64, 8192)
        _within("largest", self.largest, 16, 8192)
        _within("recall", self.recall, 0.5, 1)


class DetectorLossSection(Section, frozen=True):
    """focus: power by which a score's error weights its cross-entropy (0 plain).  box, landmarks: weights of the mean
    absolute errors, in units of the face's size, beside the score's loss."""

    focus: float = 2.0
    box: float = 2.0
    landmarks: float = 2.0

    def __post_init__(self) -> None:
        _within("focus", self.focus, 0, 5)
        _within("box", self.box, 0, 100)
        _within("landmarks", self.landmarks, 0, 100)
