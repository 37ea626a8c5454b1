"""The face detector's network: luminance in, for every cell of three grids a score, a box and five landmarks out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.sections import DetectorNetworkSection

__all__ = ["LUMA_BGR", "OUTPUTS", "SCALE", "FaceGraph", "FaceNetwork"]

STRIDES = (8, 16, 32)
#: The outputs of an exported detector, in order: YuNet's form.
OUTPUTS = [f"{part}_{stride}" for stride in STRIDES for part in ("cls", "obj", "bbox", "kps")]
#: The shares of blue, green and red in luminance: ITU-R BT.601.
LUMA_BGR = (0.114, 0.587, 0.299)
#: By this luminance is divided before the stem.
SCALE = 64.0


def _dense(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _depthwise(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _More(nn.Module):
    """x + a depthwise and a 1x1 convolution; nothing but x at first, so a trained network may be given more of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.pointwise(self.depthwise(x))))


class FaceNetwork(nn.Module):
    """A 3x3 stem, a halving block, three stages, and a merge from coarse to fine before the last block of the finer two.

    widths: channels at strides 2, 4, 8, 16, 32.  depths: blocks after the halving one, at strides 8, 16, 32.
    early: blocks at stride 4, the halving one with them; those after it are residual.
    Input: luminance (n, 1, h, w) 0..255, sides multiples of 32. Output: (n, cells, 15), the cells of stride 8 first, each
    row by row: the logit of the score, then dx, dy, log w, log h and five landmarks as `mien.runtime.detect.decode` reads.
    """

    def __init__(self, section: DetectorNetworkSection) -> None:
        super().__init__()
        block = _dense if section.convolution == "dense" else _depthwise
        stem, early, a, b, c = section.widths
        fine, middle, coarse = section.depths
        self.stem = nn.Conv2d(1, stem, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(stem)
        self.early = block(stem, early, 2)
        self.more = nn.Sequential(*[_More(early) for _ in range(section.early - 1)])
        self.fine = nn.Sequential(block(early, a, 2), *[block(a, a) for _ in range(fine - 1)])
        self.middle = nn.Sequential(block(a, b, 2), *[block(b, b) for _ in range(middle - 1)])
        self.coarse = nn.Sequential(block(b, c, 2), *[block(c, c) for _ in range(coarse)])
        self.down = nn.ModuleList([nn.Conv2d(c, b, 1), nn.Conv2d(b, a, 1)])
        self.last = nn.ModuleList([block(b, b), block(a, a)])
        self.heads = nn.ModuleList([nn.Conv2d(width, 15, 1) for width in (a, b, c)])
        for head in self.heads.modules():
            if isinstance(head, nn.Conv2d) and head.bias is not None:
                nn.init.normal_(head.weight, std=0.01)
                nn.init.zeros_(head.bias)
                head.bias.data[0] = -4.0  # faces are rare

    def forward(self, luminance: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(luminance / SCALE)))
        return torch.cat([y.flatten(2).transpose(1, 2) for y in self.grids(x)], dim=1)

    def grids(self, x: Tensor) -> list[Tensor]:
        """From the stem's features to the answer at each stride: (n, 15, h, w)."""
        fine = self.fine(self.more(self.early(x)))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.last[0](torch.relu(middle + _double(self.down[0](coarse))))
        fine = self.last[1](torch.relu(fine + _double(self.down[1](middle))))
        return [head(y) for head, y in zip(self.heads, (fine, middle, coarse), strict=True)]


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class FaceGraph(nn.Module):
    """The network as it is exported, in YuNet's form: BGR (n, 3, h, w) 0..255 in, OUTPUTS out.

    Luminance, scaling and the stem's norm are folded into one convolution of three channels.
    """

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        norm = network.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        luma = torch.tensor(LUMA_BGR).reshape(1, 3, 1, 1) / SCALE
        self.stem = nn.Conv2d(3, len(gain), 3, 2, 1)
        self.stem.weight.data = network.stem.weight.data * luma * gain.data.reshape(-1, 1, 1, 1)
        self.stem.bias.data = norm.bias.data - norm.running_mean * gain.data  # type: ignore[union-attr]
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        for y in self.network.grids(torch.relu(self.stem(image))):
            cell = y.permute(0, 2, 3, 1).flatten(1, 2)
            score = torch.sigmoid(cell[..., :1])
            outputs += [score, score * 1.0, cell[..., 1:5], cell[..., 5:]]
        return tuple(outputs)
