"""Detectors: what they find, what they refuse, what they cost."""

import cv2
import numpy as np
import pytest

from builders import drawn_face
from mien.errors import ConfigError, ModelError
from mien.runtime.detect import GridDetector, WholeImage, decode
from mien.runtime.store import ENTRIES, fetch
from mien.spec import CropSpec
from mien.vision.align import crop
from mien.vision.image import read_image
from test_runtime import a_model


def outputs_with(stride: int, cell: tuple[int, int], sides: int = 64) -> list[np.ndarray]:
    """YuNet's twelve tensors for a square picture with one sure face: centre and landmarks half a cell in, 16 px wide."""
    tensors = []
    for s in (8, 16, 32):
        cells = (sides // s) ** 2
        level = [np.zeros((1, cells, width), np.float32) for width in (1, 1, 4, 10)]
        if s == stride:
            at = cell[0] * (sides // s) + cell[1]
            level[0][0, at] = level[1][0, at] = 0.9
            level[2][0, at] = (0.5, 0.5, np.log(16 / s), np.log(32 / s))
            level[3][0, at] = 0.5
        tensors += level
    return tensors


@pytest.mark.parametrize(("stride", "cell"), [(8, (3, 5)), (16, (0, 3)), (32, (1, 1))])
def test_a_cell_says_where_its_face_is(stride, cell):
    boxes, points, scores = decode(outputs_with(stride, cell), 64, 0.7)
    x, y = (cell[1] + 0.5) * stride, (cell[0] + 0.5) * stride
    assert np.allclose(boxes, [(x - 8, y - 16, x + 8, y + 16)])
    assert np.allclose(points, np.broadcast_to((x, y), (1, 5, 2)))
    assert np.allclose(scores, 0.9)


def test_below_the_threshold_there_is_nothing():
    boxes, points, scores = decode(outputs_with(8, (0, 0)), 64, 0.95)
    assert (boxes.shape, points.shape, scores.shape) == ((0, 4), (0, 5, 2), (0,))


def test_a_whole_image_is_cropped_to_itself():
    spec = CropSpec(width=48, height=48, margin=0.3)
    image = drawn_face(48)
    [face] = WholeImage(spec)(image)
    assert np.array_equal(crop(image, face, spec), image)


def test_a_file_of_another_form_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not a detector in YuNet's form"):
        GridDetector(a_model(tmp_path / "m.onnx"))


def test_a_file_of_one_size_is_refused(yunet_file):
    with pytest.raises(ModelError, match="pictures of one size only"):
        GridDetector(yunet_file.with_name("yunet_n_640_640.onnx"))


@pytest.fixture
def photo(test_data) -> np.ndarray:
    return read_image(test_data / "photos" / "portrait_1.jpg")


def test_the_largest_face_comes_first_and_the_left_eye_is_at_the_left(test_data, yunet_file):
    faces = GridDetector(yunet_file, 1)(read_image(test_data / "photos" / "group_selfie.jpg"))
    assert [face.size for face in faces] == sorted((face.size for face in faces), reverse=True)
    for face in faces:
        left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.parametrize("width", [300, 640, 2000])
def test_boxes_are_in_pixels_of_the_image_given(width, photo, yunet_file):
    detector = GridDetector(yunet_file, 1)
    [reference] = detector(photo)
    scale = width / photo.shape[1]
    [face] = detector(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    assert np.allclose(face.box, np.array(reference.box) * scale, atol=0.05 * face.size)
    assert np.allclose(face.landmarks, reference.landmarks * scale, atol=0.05 * face.size)


def test_small_faces_are_found_when_asked(photo, yunet_file):
    [face] = GridDetector(yunet_file, 1)(photo)
    scale = 30 / face.size
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    large = np.full((2400, 3200, 3), 120, np.uint8)
    large[1000 : 1000 + small.shape[0], 2000 : 2000 + small.shape[1]] = small
    assert GridDetector(yunet_file, 1)(large) == []
    [found] = GridDetector(yunet_file, 1, min_size=30)(large)
    assert abs(found.size - 30) < 5


def test_a_panorama_keeps_its_faces(photo, yunet_file):
    [face] = GridDetector(yunet_file, 1)(photo)
    person = cv2.resize(photo, None, fx=200 / face.size, fy=200 / face.size, interpolation=cv2.INTER_AREA)[:500]
    panorama = np.full((500, 20_000, 3), 120, np.uint8)
    for start in range(500, 19_000, 2000):
        panorama[: person.shape[0], start : start + person.shape[1]] = person
    assert len(GridDetector(yunet_file, 1)(panorama)) == 10


def test_a_wall_of_three_hundred_is_found(photo, yunet_file):
    [face] = GridDetector(yunet_file, 1)(photo)
    x0, y0, x1, y1 = (round(edge) for edge in face.box)
    head = cv2.resize(
        photo[max(0, y0 - 90) : y1 + 90, max(0, x0 - 90) : x1 + 90], (64, 64), interpolation=cv2.INTER_AREA
    )
    assert len(GridDetector(yunet_file, 1, min_size=30)(np.tile(head, (15, 20, 1)))) == 300


@pytest.mark.parametrize("shape", [(10_000, 12_000), (500, 20_000), (1, 2_000_000), (48, 48)])
def test_however_small_the_faces_asked_for_the_look_is_bounded(shape, yunet_file):
    detector = GridDetector(yunet_file, 1, min_size=1)
    scale = max(detector._scales(shape))
    assert shape[0] * shape[1] * scale**2 <= 4096 * 3072 * 1.001
    assert max(shape) * scale <= 16_384


@pytest.mark.parametrize("kind", ["checkerboard", "noise", "grey"])
def test_patterns_have_no_face(kind, yunet_file):
    image = {
        "checkerboard": ((np.indices((480, 640)).sum(axis=0) // 16) % 2 * 255).astype(np.uint8),
        "noise": np.random.default_rng(0).integers(0, 255, (480, 640)).astype(np.uint8),
        "grey": np.full((480, 640), 128, np.uint8),
    }[kind]
    assert GridDetector(yunet_file, 1)(np.repeat(image[..., None], 3, axis=2)) == []


@pytest.fixture
def ours():
    """The detector inside the package."""
    return GridDetector(fetch(ENTRIES["mien-face"]), 1)


def test_the_shipped_detector_on_odd_pictures(ours):
    checkerboard = ((np.indices((480, 640)).sum(axis=0) // 16) % 2 * 255).astype(np.uint8)
    for plain in (checkerboard, np.full((480, 640), 128, np.uint8), np.zeros((1, 1), np.uint8)):
        assert ours(np.repeat(plain[..., None], 3, axis=2)) == []
    for shape in [(10_000, 12_000), (500, 20_000), (1, 2_000_000)]:
        assert shape[0] * shape[1] * max(ours._scales(shape)) ** 2 <= 4096 * 3072


@pytest.mark.parametrize("size", [0, -5, 0.5, float("nan"), float("inf")])
def test_what_is_no_size_of_a_face_is_refused(size):
    with pytest.raises(ConfigError, match=f"min_size: {size:g} is no size of a face; give pixels from 1 on"):
        GridDetector(fetch(ENTRIES["mien-face"]), 1, min_size=size)


@pytest.mark.parametrize("name", ["portrait_1.jpg", "portrait_2.jpg", "group_selfie.jpg"])
def test_large_faces_stay_whole_where_small_ones_are_asked_for(ours, test_data, name):
    image = read_image(test_data / "photos" / name)
    close = GridDetector(fetch(ENTRIES["mien-face"]), 1, min_size=20)
    largest, found = ours(image)[0], close(image)
    assert found[0].box == largest.box
    assert len(found) <= len(ours(image)) + 2


def test_the_shipped_detector_finds_faces_of_all_sizes(ours, photo):
    [face] = ours(photo)
    x0, y0, x1, y1 = (round(edge) for edge in face.box)
    assert len(ours(cv2.resize(photo[y0:y1, x0:x1], (900, 1200)))) == 1
    small = cv2.resize(photo, None, fx=20 / face.size, fy=20 / face.size, interpolation=cv2.INTER_AREA)
    canvas = np.full((480, 640, 3), 120, np.uint8)
    canvas[200 : 200 + small.shape[0], 300 : 300 + small.shape[1]] = small
    assert len(GridDetector(fetch(ENTRIES["mien-face"]), 1, min_size=20)(canvas)) == 1
    person = cv2.resize(photo, None, fx=200 / face.size, fy=200 / face.size, interpolation=cv2.INTER_AREA)[:500]
    panorama = np.full((500, 20_000, 3), 120, np.uint8)
    for start in range(500, 19_000, 2000):
        panorama[: person.shape[0], start : start + person.shape[1]] = person
    assert len(ours(panorama)) == 10
    head = photo[max(0, y0 - 90) : y1 + 90, max(0, x0 - 90) : x1 + 90]
    wall = np.tile(cv2.resize(head, (64, 64), interpolation=cv2.INTER_AREA), (15, 20, 1))
    found = GridDetector(fetch(ENTRIES["mien-face"]), 1, min_size=30)(wall)  # at the seams a few more, or fewer
    tiles = {(int(f.box[0] + f.box[2]) // 128, int(f.box[1] + f.box[3]) // 128) for f in found}
    assert len(tiles) == 300
    assert sum(face.score > 0.6 for face in found) <= 306
    assert len(found) <= 360  # the present one takes seams for faces, with scores below 0.55 (docs/detector.md)


@pytest.mark.parametrize("shade", [(1.0, 1.0, 1.0), (0.6, 1.0, 1.3), (0.4, 0.4, 0.4)])
def test_colour_casts_and_dim_light_do_not_matter(shade, ours, photo):
    [plain] = ours(photo)
    [face] = ours(np.clip(photo * np.array(shade), 0, 255).astype(np.uint8))
    assert np.allclose(face.box, plain.box, atol=0.08 * plain.size)
