"""Random changes of training chips, on whole batches of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mien.errors import MissingExtra
from mien.sections import AugmentSection

__all__ = ["augment", "centre", "spoil"]


def centre(chips: Tensor, border: int) -> Tensor:
    """Chips (n, k, H, W) without their border, as float32 (n, 3, h, w) 0..255."""
    inner = chips[..., border : chips.shape[-2] - border, border : chips.shape[-1] - border]
    return inner.float().expand(-1, 3, -1, -1)


def augment(chips: Tensor, section: AugmentSection, border: int) -> Tensor:
    """uint8 chips (n, k, H, W) with border to float32 (n, 3, h, w) 0..255, each changed in its own way.

    Draws from torch's global generator: the caller seeds it.
    """
    x = spoil(_move(chips.float(), section, border), section)
    if section.colour:
        x = x.expand(-1, 3, -1, -1) * torch.exp((torch.rand(len(x), 3, 1, 1, device=x.device) * 2 - 1) * section.colour)
    x = _by_chance(
        x, ((section.clahe, _equalised), (section.jpeg, _jpeg), (section.invert, lambda chosen: 255 - chosen))
    )
    if section.randaugment:
        x = _randaugment(x.clamp(0, 255), section.randaugment)
    if section.erase:
        x = _erased(x, section.erase)
    return x.clamp(0, 255).expand(-1, 3, -1, -1)


def spoil(x: Tensor, section: AugmentSection) -> Tensor:
    """Light, blur and noise by chance on float32 pictures (n, k, h, w) 0..255; noise may leave that range."""
    x = _light(x, section.light)
    return _by_chance(x, ((section.dark, _dim), (section.blur, _blurred), (section.noise, _noisy)))


def _by_chance(x: Tensor, changes: Iterable[tuple[float, Callable[[Tensor], Tensor]]]) -> Tensor:
    """Each change on the rows that its probability picks."""
    for probability, change in changes:
        if probability:
            rows = torch.nonzero(torch.rand(len(x), device=x.device) < probability).squeeze(1)
            x = x.index_copy(0, rows, change(x[rows]).to(x)) if len(rows) else x
    return x


def _dim(x: Tensor) -> Tensor:
    """Low light: a quarter to a tenth, with the noise that a camera then shows."""
    return x * _uniform(x, 0.1, 0.25) + torch.randn_like(x) * 3


def _equalised(x: Tensor) -> Tensor:
    """Contrast-limited adaptive histogram equalisation of each channel (Zuiderveld 1994), OpenCV's."""
    clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4))
    plain = x.clamp(0, 255).byte().cpu().numpy()
    return torch.from_numpy(np.stack([[clahe.apply(channel) for channel in chip] for chip in plain]))


def _jpeg(x: Tensor) -> Tensor:
    plain = np.ascontiguousarray(x.flip(1).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy())  # BGR, or grey
    quality = torch.randint(20, 81, (len(x),)).tolist()
    flag = cv2.IMREAD_GRAYSCALE if x.shape[1] == 1 else cv2.IMREAD_COLOR
    made = [
        np.asarray(cv2.imdecode(cv2.imencode(".jpg", chip, [cv2.IMWRITE_JPEG_QUALITY, q])[1], flag))
        for chip, q in zip(plain, quality, strict=True)
    ]
    return torch.from_numpy(np.stack(made)).reshape(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2).flip(1)


def _randaugment(x: Tensor, operations: int) -> Tensor:
    try:
        from torchvision.transforms import RandAugment
    except ModuleNotFoundError as error:
        raise MissingExtra.of("augment.randaugment needs torchvision", "train") from error
    change = RandAugment(operations)
    rgb = x.byte().expand(-1, 3, -1, -1)
    return torch.stack([change(chip) for chip in rgb]).float()


def _noisy(x: Tensor) -> Tensor:
    return x + torch.randn_like(x) * (2 + 10 * _uniform(x))


def _uniform(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, device=x.device) * (high - low) + low


def _some(x: Tensor, probability: float) -> Tensor:
    return _uniform(x) < probability


def _move(x: Tensor, section: AugmentSection, border: int) -> Tensor:
    """Flip, turn, scale and shift in one bilinear sampling; the border gives real context to move into."""
    n, k, full_h, full_w = x.shape
    h, w = full_h - 2 * border, full_w - 2 * border
    angle = _uniform(x, -1, 1).view(n) * math.radians(section.rotate)
    scale = 1 + _uniform(x, -1, 1).view(n) * section.scale
    mirror = torch.where(_some(x, section.flip).view(n), -1.0, 1.0)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    shift = (torch.rand(n, 2, device=x.device) * 2 - 1) * 2 * section.shift
    theta = torch.stack(
        [
            torch.stack([cos * mirror * w / full_w, -sin * h / full_w, shift[:, 0] * w / full_w], 1),
            torch.stack([sin * mirror * w / full_h, cos * h / full_h, shift[:, 1] * h / full_h], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [n, k, h, w], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _light(x: Tensor, strength: float) -> Tensor:
    if not strength:
        return x
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    contrast, gain = (torch.exp(_uniform(x, -1, 1) * strength) for _ in range(2))
    return torch.addcmul(mean * (gain - contrast), x, contrast).clamp_(0, 255)


def _blurred(x: Tensor) -> Tensor:
    weights = torch.tensor([1.0, 2.0, 1.0], device=x.device) / 4
    kernel = (weights[:, None] * weights).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])


def _erased(x: Tensor, probability: float) -> Tensor:
    _, _, h, w = x.shape
    area, ratio = _uniform(x, 0.02, 0.2), torch.exp(_uniform(x, -0.7, 0.7))
    half_h, half_w = torch.sqrt(area * ratio) * h / 2, torch.sqrt(area / ratio) * w / 2
    rows = torch.arange(h, device=x.device).view(1, 1, h, 1)
    columns = torch.arange(w, device=x.device).view(1, 1, 1, w)
    inside = ((rows - _uniform(x) * h).abs() < half_h) & ((columns - _uniform(x) * w).abs() < half_w)
    return torch.where(inside & _some(x, probability), _uniform(x, 0, 255), x)
