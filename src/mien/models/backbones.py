"""Backbones: pictures in, a map of features (n, features, h, w) out; or a vector (n, features), where a network pools itself.

A backbone has `features`, `stages` (its parts from the first on, for freezing and for rates) and `mean`, `std`: what its
input is scaled with, in units of 0..255.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mien.errors import ConfigError, MissingExtra, near_miss

__all__ = ["BACKBONES", "Backbone", "Layers", "ResidualNet", "TimmBackbone", "build_backbone"]

_MEAN, _STD = (128.0,), (64.0,)
#: What timm's models call a list of parts that follow each other; each part is a stage.
_LISTS = frozenset({"stages", "blocks", "layers", "features"})


class Backbone(nn.Module):
    """What every backbone has besides `forward`."""

    features: int
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD

    @property
    def stages(self) -> list[nn.ModuleList]:
        """Its parts, from the input on; each has parameters, and every parameter is in one of them."""
        raise NotImplementedError


def _has_kernels(part: nn.Module) -> bool:
    return any(p.ndim > 1 for p in part.parameters())


def _stages(
    parts: Iterable[nn.Module], begins: Callable[[nn.Module], bool] = _has_kernels, own: Iterable[nn.Parameter] = ()
) -> list[nn.ModuleList]:
    """Parts that follow each other as stages; none where no part begins one.

    begins: whether a part begins a stage; the others (norms, activations, pooling, dropout) belong to the one before, ahead
        of all to the first.  own: parameters beside the parts, of the first stage too.
    """
    stages, begun = [nn.ModuleList([nn.ParameterList(own)])], False
    for part in parts:
        if begins(part):
            stages += [nn.ModuleList()] if begun else []
            begun = True
        stages[-1].append(part)
    return stages if begun else []


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class _Residual(nn.Module):
    """x + two dense 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class ResidualNet(Backbone):
    """A small residual network of dense 3x3 convolutions.

    widths: channels of each stage; every stage after the first halves the side.  depths: residual blocks a stage.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers += [_conv(before, width, 1 if stage == 0 else 2), nn.ReLU()]
            layers += [_Residual(width) for _ in range(depth)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.features = before

    @property
    def stages(self) -> list[nn.ModuleList]:
        """Each a convolution to another number of channels, and its residual blocks."""
        return _stages(self.layers, lambda part: isinstance(part, nn.Sequential))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Layers(Backbone):
    """A plain stack of layers."""

    def __init__(self, layers: list[nn.Module], features: int) -> None:
        super().__init__()
        self.layers, self.features = nn.Sequential(*layers), features

    @property
    def stages(self) -> list[nn.ModuleList]:
        return _stages(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _cnn(channels: int, size: tuple[int, int]) -> Layers:
    """Three 3x3 convolutions of 16, 32, 64 channels, each with ReLU and max-pooling; to be flattened."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return Layers(layers, 64 * (size[0] // 8) * (size[1] // 8))


def _mlp(channels: int, size: tuple[int, int]) -> Layers:
    """The pixels themselves; to be flattened."""
    return Layers([nn.Identity()], channels * size[0] * size[1])


def _fcn(channels: int, size: tuple[int, int]) -> Layers:  # noqa: ARG001 - any size
    """Five convolutions with norm, max-pooling and dropout: 16 (5x5), 32 (3x3), 64 (5x5), 128 (3x3), 256 (3x3)."""
    layers: list[nn.Module] = []
    plan = [(16, 5, 2, 0.05), (32, 3, 2, 0.10), (64, 5, 5, 0.05), (128, 3, 2, 0.10), (256, 3, 0, 0.35)]
    for width, kernel, pool, dropout in plan:
        act: nn.Module = nn.LeakyReLU() if pool else nn.SiLU()
        layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), act]
        layers += [nn.MaxPool2d(pool)] if pool else []
        layers += [nn.Dropout(dropout)]
        channels = width
    return Layers(layers, channels)


class TimmBackbone(Backbone):
    """Any of timm's models without its classifier (R. Wightman, https://github.com/huggingface/pytorch-image-models).

    own_pool: whether the model pools by itself (as transformers and VGG do), or gives its feature map.
    """

    def __init__(self, name: str, channels: int, size: tuple[int, int], pretrained: bool, own_pool: bool) -> None:
        super().__init__()
        timm = _timm()
        options: dict[str, Any] = {"num_classes": 0, "in_chans": channels, "pretrained": pretrained}
        if own_pool and _takes_size(name):
            options["img_size"] = size
        try:
            self.model = timm.create_model(name, **options)
        except (RuntimeError, OSError, ValueError) as error:
            why = " ".join(str(error).split())[:300]
            if pretrained and isinstance(error, OSError):
                raise ConfigError(
                    f"network.pretrained: the weights of timm:{name} cannot be fetched ({why}); begin once where there is a "
                    "network (they stay in the cache that HF_HOME names), or at random: --set network.pretrained=false"
                ) from error
            raise ConfigError(f"network.backbone: timm:{name} cannot be built with these settings: {why}") from error
        config = self.model.pretrained_cfg
        self.mean = tuple(255 * m for m in config.get("mean", (0.5,)))[:channels]
        self.std = tuple(255 * s for s in config.get("std", (0.5,)))[:channels]
        self.own_pool = own_pool
        self.features = int(self.model.head_hidden_size if own_pool else self.model.num_features)

    @property
    def stages(self) -> list[nn.ModuleList]:
        """Each a child of timm's model, or a part of a child that is a list of parts (a stage of ConvNeXt, a block of ViT)."""
        parts: list[nn.Module] = []
        for name, child in self.model.named_children():
            listed = name in _LISTS and isinstance(child, nn.Sequential | nn.ModuleList)
            parts += child if listed else [child]
        return _stages(parts, own=self.model.parameters(recurse=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.model.forward_features(x)
        return self.model.forward_head(x, pre_logits=True) if self.own_pool else x


def _takes_size(name: str) -> bool:
    return name.split(".")[0].startswith(("vit_", "deit", "swin", "visformer", "beit", "eva", "cait", "maxvit", "coat"))


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Backbones of timm need timm", "train") from error
    return timm


BACKBONES: dict[str, Callable[[int, tuple[int, int]], Backbone]] = {
    "mien-small": lambda channels, _: ResidualNet(channels, (24, 48, 96, 192), (0, 1, 1, 2)),
    "mien-wide": lambda channels, _: ResidualNet(channels, (32, 64, 128, 256), (0, 1, 2, 2)),
    "mien-broad": lambda channels, _: ResidualNet(channels, (32, 96, 160, 320), (0, 1, 2, 1)),
    "mien-nano-wide": lambda channels, _: ResidualNet(channels, (16, 32, 64, 112), (0, 1, 1, 1)),
    "mien-nano": lambda channels, _: ResidualNet(channels, (16, 32, 48, 96), (0, 1, 1, 1)),
    "mien-pico": lambda channels, _: ResidualNet(channels, (8, 16, 32, 48), (0, 0, 1, 1)),
    "cnn": _cnn,
    "mlp": _mlp,
    "fcn": _fcn,
}


def build_backbone(
    name: str, channels: int, size: tuple[int, int] = (48, 48), pretrained: bool = False, own_pool: bool = False
) -> Backbone:
    """A backbone by name for pictures of `size` (height, width). Raises ConfigError with the nearest known name."""
    if name.startswith("timm:"):
        wanted = name.removeprefix("timm:")
        if not _timm().is_model(wanted.split(".")[0]):
            known = [f"timm:{model}" for model in _timm().list_models()]
            raise ConfigError(f"network.backbone: timm has no model of that name: {name!r}; {near_timm(name, known)}")
        return TimmBackbone(wanted, channels, size, pretrained, own_pool)
    if name not in BACKBONES:
        raise ConfigError(f"network.backbone: unknown backbone {name!r}; {near_miss(name, [*BACKBONES, 'timm:NAME'])}")
    if pretrained:
        raise ConfigError(f"network.pretrained: {name} has no pretrained weights; start from a run with --init")
    return BACKBONES[name](channels, size)


def near_timm(name: str, known: list[str]) -> str:
    """The nearest of timm's thousand names, or where to find them."""
    import difflib

    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
