"""Corruptions: fixed, graded, the same again; and what a model keeps under them."""

import cv2
import msgspec
import numpy as np
import pytest

from mien.data.manifest import Header, Sample, make_manifest
from mien.data.prepare import prepare
from mien.data.synthetic import synthetic
from mien.errors import DataError
from mien.evaluation.corruptions import CORRUPTIONS, border_for, corrupted
from mien.evaluation.robustness import robustness
from mien.labels import LabelSet
from mien.spec import CropSpec

BORDER = border_for(48)
FRAMING = synthetic(1, seed=0).header.framing


def a_chip(seed=0, side=48):
    rng = np.random.default_rng(seed)
    rough = rng.integers(30, 220, (9, 9, 1)).astype(np.uint8)
    size = side + 2 * border_for(side)
    return np.repeat(np.kron(rough[..., 0], np.ones((size // 9 + 1,) * 2, np.uint8))[:size, :size, None], 3, axis=2)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_graded_and_the_same_again(name):
    inner = a_chip()[BORDER:-BORDER, BORDER:-BORDER].astype(float)
    distances = []
    for level in range(1, 6):
        out = corrupted(a_chip(), BORDER, name, level, "row")
        assert out.shape == (48, 48, 3)
        assert out.dtype == np.uint8
        assert np.array_equal(out, corrupted(a_chip(), BORDER, name, level, "row"))
        distances.append(np.abs(out - inner).mean())
    assert distances[0] > 0
    assert distances[-1] > distances[0]
    assert np.array_equal(a_chip(), a_chip())  # the chip itself is left alone


def test_chance_depends_on_row_and_seed_and_nothing_else():
    first = corrupted(a_chip(), BORDER, "noise", 3, "row 1")
    assert not np.array_equal(first, corrupted(a_chip(), BORDER, "noise", 3, "row 2"))
    assert not np.array_equal(first, corrupted(a_chip(), BORDER, "noise", 3, "row 1", seed=1))


@pytest.mark.parametrize("grey", [False, True])
def test_jpeg_is_that_of_a_picture_whose_red_is_red(grey):
    """At 96 pixels a side nothing is resized: what OpenCV, which wants blue first, makes of the chip."""
    border = border_for(96)
    side = 96 + 2 * border
    chip = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    chip = np.repeat(chip[..., :1], 3, axis=2) if grey else chip
    data = cv2.imencode(".jpg", chip[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    wanted = cv2.imdecode(data, cv2.IMREAD_COLOR)[border:-border, border:-border, ::-1]
    assert np.array_equal(corrupted(chip, border, "jpeg", 1, "row"), wanted)
    assert not grey or np.array_equal(wanted, np.repeat(wanted[..., :1], 3, axis=2))


def test_lengths_are_shares_of_the_face():
    """A move of 0.2 of the side is 9.6 pixels at 48 and 19.2 at 96: the same part of the face."""
    for side in (48, 96):
        border = border_for(side)
        chip = np.zeros((side + 2 * border,) * 2 + (3,), np.uint8)
        middle = border + side // 2
        chip[middle - 1 : middle + 1, middle - 1 : middle + 1] = 255
        out = corrupted(chip, border, "crop offset", 5, "row")[..., 0].astype(float)
        y, x = (np.average(np.arange(side), weights=out.sum(axis=axis)) for axis in (1, 0))
        assert abs(np.hypot(y - side / 2 + 0.5, x - side / 2 + 0.5) / side - 0.2) < 0.01


class Bright:
    """Says the first label if the chip's middle is bright."""

    def run(self, chips):
        p = chips[:, 16:32, 16:32].mean(axis=(1, 2, 3)) / 255
        return np.stack([p, 1 - p], axis=1), np.full((len(chips), 2), np.nan)


def plain_chips(names=("neutral", "happiness")):
    """Twelve chips of one grey level: 200 is neutral, 60 is happiness."""
    crop = CropSpec(width=48, height=48, border=BORDER, colour="grey")
    labels = LabelSet(names)
    samples = []
    for i in range(12):
        chip = np.full((48 + 2 * BORDER,) * 2, 60 if i % 2 else 200, np.uint8)
        samples.append(
            Sample(f"r{i}", cv2.imencode(".png", chip)[1].tobytes(), labels.onehot(("neutral", "happiness")[i % 2]))
        )
    return make_manifest(
        [*samples, Sample("unlabelled", samples[0].image)], Header(source="plain", labels=names, crop=crop)
    )


def test_a_model_that_looks_at_brightness_stands_blur_but_not_the_dark():
    names = LabelSet(("neutral", "happiness"))
    found = robustness(Bright(), names, plain_chips(), count=50)
    assert (found.rows, found.clean) == (12, 1)
    assert set(found.curves) == set(CORRUPTIONS)
    for name in ("blur", "noise", "jpeg", "rotation", "crop offset", "low resolution"):
        assert found.relatives[name] == 1, name
    # light of 0.5, 0.3, ... leaves 146, 116, ... of 200: below the middle all is taken for happiness
    assert [level.accuracy for level in found.curves["low light"]] == [1, 0.5, 0.5, 0.5, 0.5]
    assert [level.flips for level in found.curves["low light"]] == [0, 0.5, 0.5, 0.5, 0.5]
    assert found.relatives["low light"] == 0.6
    assert abs(found.relative - np.mean(list(found.relatives.values()))) < 1e-9
    assert found.relative_interval[0] <= found.relative <= found.relative_interval[1]
    assert robustness(Bright(), names, plain_chips(), count=50) == found
    swapped = robustness(Bright(), names, plain_chips(("happiness", "neutral")), count=50)
    assert swapped == found  # answers are moved onto the data's labels


def test_chips_without_a_border_repeat_their_edge():
    spec = msgspec.structs.replace(FRAMING, width=48, height=48, colour="grey")
    bare = prepare(synthetic(12, seed=0), spec).chips
    labels = LabelSet(bare.labels.names)

    class First:
        def run(self, chips):
            assert chips.shape[1:] == (48, 48, 3)
            return np.tile(np.eye(8)[0], (len(chips), 1)), np.zeros((len(chips), 2))

    found = robustness(First(), labels, bare, count=20)
    assert (found.relative, found.flips) == (1, 0)

    class Last(First):
        def run(self, chips):
            return np.tile(np.eye(8)[7], (len(chips), 1)), np.zeros((len(chips), 2))

    unseen = bare.take(np.flatnonzero(bare.targets().argmax(axis=1) != 7))
    with pytest.raises(DataError, match="nothing to compare with"):
        robustness(Last(), labels, unseen, count=20)
