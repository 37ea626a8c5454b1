"""Changes of training chips, held against what they stand for."""

import cv2
import numpy as np
import pytest
import torch

from mien.training.augment import _jpeg


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_a_picture_whose_red_is_red(channels):
    """What OpenCV, which wants blue first, makes of each chip at its quality."""
    x = torch.randint(0, 256, (4, channels, 24, 32), generator=torch.Generator().manual_seed(0)).float()
    torch.manual_seed(1)
    out = _jpeg(x)
    torch.manual_seed(1)
    flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
    for one, chip, quality in zip(out, x, torch.randint(20, 81, (4,)).tolist(), strict=True):
        picture = np.ascontiguousarray(chip.byte().permute(1, 2, 0).numpy()[..., ::-1])
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        wanted = cv2.imdecode(data, flag).reshape(24, 32, channels)[..., ::-1]
        assert np.array_equal(one.permute(1, 2, 0).numpy(), wanted)
