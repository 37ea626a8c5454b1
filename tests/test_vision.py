"""Images, the one crop, video, drawing."""

import io
import struct
import sys
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from builders import a_face, a_video, an_expression, drawn_face
from mien.errors import ImageError, OutputError, VideoError
from mien.faces import Face
from mien.runtime.sessions import read_spec
from mien.runtime.store import model_file
from mien.spec import CropSpec
from mien.vision.align import crop, framed, similarity
from mien.vision.draw import draw
from mien.vision.image import read_image, write_image
from mien.vision.video import VideoWriter, frames, video_info

FRAMING = read_spec(model_file("ferplus-small")).crop


def encoded(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    picture = Image.new(mode, (5, 4))
    image = read_image(encoded(picture, "JPEG" if mode == "CMYK" else "PNG"))
    assert (image.shape, image.dtype) == ((4, 5, 3), np.uint8)


def test_sixteen_bits_keep_their_light():
    grey = (np.linspace(0, 65535, 100).reshape(10, 10)).astype(np.uint16)
    image = read_image(encoded(Image.fromarray(grey)))
    assert abs(int(image[9, 9, 0]) - 255) <= 1
    assert np.array_equal(image, read_image(grey))


def test_sixteen_bits_are_read_alike_however_dark_the_picture():
    dark = np.array([[0, 200], [250, 255]], np.uint16)
    light = np.array([[0, 200], [250, 65535]], np.uint16)
    for form in ("PNG", "TIFF"):
        assert not read_image(encoded(Image.fromarray(dark), form)).any()
        assert read_image(encoded(Image.fromarray(light), form))[..., 0].tolist() == [[0, 0], [0, 255]]


def test_a_tiff_of_twelve_bits_has_its_own_white():
    values = [0, 2048, 4095, 16]
    packed = b"".join(((a << 12) | b).to_bytes(3, "big") for a, b in (values[:2], values[2:]))
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<I", 14) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert read_image(data)[0, :, 0].tolist() == [0, 127, 255, 0]


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 0.2, 0.4], [0, 51, 102]),
        ([-0.1, 0.5, 1.2], [0, 128, 255]),  # what sharpening overshoots
        ([0, 100.4, 255], [0, 100, 255]),
        ([-3, 100.6, 300], [0, 101, 255]),
    ],
)
def test_floats_run_to_one_or_to_255(values, read):
    picture = Image.fromarray(np.array([values], np.float32))
    assert read_image(encoded(picture, "TIFF"))[0, :, 0].tolist() == read_image(picture)[0, :, 0].tolist() == read


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, np.nan]], np.float32), "numbers that are not finite"),
        (np.array([[0, np.inf]], np.float32), "numbers that are not finite"),
        (np.array([[0, 65535]], np.float32), "floats up to 65535; scale them to 0..1 or 0..255"),
        (np.array([[0, 255]], np.int32), "whose white is not known; save them as 8 or 16 bits"),
    ],
)
def test_numbers_of_unknown_range_are_refused(values, message, tmp_path):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ImageError, match=rf"^\S+x\.tif: .*{message}"):
        read_image(tmp_path / "x.tif")


def test_exif_turns_the_picture():
    picture = Image.fromarray(np.zeros((4, 8, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6
    assert read_image(encoded(picture, "JPEG", exif=exif)).shape == (8, 4, 3)


def test_transparency_lies_on_white():
    assert (read_image(encoded(Image.new("RGBA", (2, 2), (9, 9, 9, 0)))) == 255).all()


def test_every_shade_under_every_transparency_is_blended_as_by_hand():
    grey, alpha = np.mgrid[:256, :256]
    picture = np.stack([grey, 255 - grey, grey // 2, alpha], axis=2).astype(np.uint8)
    share = picture[..., 3:] / 255
    assert (read_image(picture) == np.rint(picture[..., :3] * share + 255 * (1 - share))).all()
    tall = np.tile(picture, (5, 3, 1))  # of several strips, the last one shorter
    assert (read_image(tall[:-1]) == np.tile(read_image(picture), (5, 3, 1))[:-1]).all()


def test_transparency_takes_little_memory_besides_the_answer():
    picture = np.full((1500, 1000, 4), 200, np.uint8)
    tracemalloc.start()
    try:
        answer = read_image(picture)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * answer.nbytes


def test_the_first_picture_of_an_animation_counts():
    pictures = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert read_image(encoded(pictures[0], "GIF", save_all=True, append_images=pictures[1:]))[0, 0].tolist()[0] > 200


def test_a_bomb_is_refused_from_its_header():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="too many pixels|30000x30000"):
        read_image(bomb)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello, I am text", "not an image"),
        (encoded(Image.fromarray(drawn_face()), "JPEG")[:900], "cut off"),
    ],
)
def test_what_is_no_image_says_so(data, message, tmp_path):
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=rf"x\.jpg: .*{message}"):
        read_image(tmp_path / "x.jpg")


def test_bytes_of_every_kind_are_read_and_what_is_none_is_refused(tmp_path):
    Image.new("RGB", (5, 4), (9, 8, 7)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    first = read_image(tmp_path / "a.png")
    assert all(np.array_equal(read_image(kind(data)), first) for kind in (bytes, bytearray, memoryview))
    for odd in (io.BytesIO(data), None, [tmp_path / "a.png"], 3):
        with pytest.raises(ImageError, match=rf"an image of type {type(odd).__name__}: expected a path, encoded bytes"):
            read_image(odd)


def test_arrays_of_other_kinds_are_refused():
    with pytest.raises(ImageError, match="the limit is 100 pixels"):
        read_image(np.zeros((20, 20), np.uint8), max_pixels=100)
    with pytest.raises(ImageError, match="float64: expected uint8"):
        read_image(np.zeros((4, 4)))
    for odd, move in (
        (np.zeros((4, 4, 3)), "of floats from 0 to 1 give"),
        (np.zeros((3, 4, 5), np.uint8), "channels last: np.moveaxis"),
        (np.zeros((1, 4, 5, 3), np.uint8), "one picture at a time"),
        ("https://example.com/a.jpg", "addresses are not fetched"),
        ("", "^an empty path: cannot be read"),
    ):
        with pytest.raises(ImageError, match=move):
            read_image(odd)
    with pytest.raises(ImageError, match="4x4x2"):
        read_image(np.zeros((4, 4, 2), np.uint8))


def test_writing_never_replaces(tmp_path):
    write_image(tmp_path / "a.png", drawn_face())
    assert np.array_equal(read_image(tmp_path / "a.png"), drawn_face())
    with pytest.raises(OutputError, match="exists already"):
        write_image(tmp_path / "a.png", drawn_face())


def test_a_framed_picture_of_chip_size_stays_bit_identical():
    chip = np.repeat(drawn_face(48)[..., :1], 3, axis=2)
    for spec in (FRAMING, CropSpec(width=48, height=48), CropSpec(width=48, height=48, margin=0.2, shift=(0.1, 0.0))):
        assert np.array_equal(crop(chip, framed(chip.shape, spec), spec), chip)


def test_half_a_pixel_of_jitter_hardly_moves_a_large_face():
    image = cv2.resize(drawn_face(96), (1912, 1912), interpolation=cv2.INTER_CUBIC)
    spec = CropSpec(width=48, height=48)
    still, moved = (crop(image, Face((100 + d, 100 + d, 1800 + d, 1800 + d)), spec).astype(int) for d in (0, 0.5))
    assert abs(still - moved).mean() < 0.5


def test_the_crop_undoes_a_turn():
    image = cv2.GaussianBlur(drawn_face(200), (0, 0), 3)
    points = np.array(FRAMING.points) * 200
    turn = cv2.getRotationMatrix2D((100, 100), 20, 1.0)
    turned = cv2.warpAffine(image, turn, (200, 200), borderMode=cv2.BORDER_REPLICATE)
    face = Face((0, 0, 200, 200), landmarks=points)
    rolled = Face((0, 0, 200, 200), landmarks=points @ turn[:, :2].T + turn[:, 2])
    a, b = crop(image, face, FRAMING).astype(int), crop(turned, rolled, FRAMING).astype(int)
    assert abs(a - b)[8:-8, 8:-8].mean() < 3


def test_similarity_recovers_turn_scale_and_shift():
    points = np.random.default_rng(0).normal(size=(5, 2))
    truth = np.array([[0.6, -0.8, 3.0], [0.8, 0.6, -1.0]]) * 2
    assert np.allclose(similarity(points, points @ truth[:, :2].T + truth[:, 2]), truth)
    with pytest.raises(ImageError, match="coincide"):
        similarity(np.ones((5, 2)), points)


@pytest.mark.parametrize("box", [(-50.0, -50.0, 40.0, 40.0), (500.0, 500.0, 600.0, 600.0)])
def test_faces_outside_the_image_still_give_chips(box):
    assert crop(drawn_face(96), Face(box), FRAMING).shape == (48, 48, 3)
    assert crop(np.zeros((1, 1, 3), np.uint8), Face(box), FRAMING).shape == (48, 48, 3)


def test_variable_times_survive_a_video(tmp_path):
    times = a_video(tmp_path / "a.mp4", gaps=[0.04, 0.5, 0.04, 0.2])
    got = list(frames(tmp_path / "a.mp4"))
    assert [frame.index for frame in got] == list(range(5))
    assert np.allclose([frame.seconds for frame in got], times, atol=2e-3)
    assert got[0].image.shape == (64, 96, 3)
    assert video_info(tmp_path / "a.mp4")[:3] == (96, 64, 5)


@pytest.mark.parametrize(
    ("size", "box"),
    [((40, 20), (0, 8, 96, 56)), ((300, 600), (32, 0, 64, 64)), ((97, 65), (0, 0, 96, 64)), ((96, 64), (0, 0, 96, 64))],
)
def test_pictures_of_other_sizes_are_fitted_into_the_first_one(size, box, tmp_path):
    """White pictures, whose right lower quarter is red: all of them lies in `box`, and around it is black."""
    image = np.full((size[1], size[0], 3), 255, np.uint8)
    image[size[1] // 2 :, size[0] // 2 :] = (255, 0, 0)
    with VideoWriter(tmp_path / "a.mp4", 96, 64, rate=25) as writer:
        writer.write(np.zeros((64, 96, 3), np.uint8), 0.0)
        writer.write(image, 0.04)
    got = list(frames(tmp_path / "a.mp4"))[1].image
    x0, y0, x1, y1 = box
    wanted = np.zeros((64, 96, 3), np.uint8)
    wanted[y0:y1, x0:x1] = 255
    wanted[(y0 + y1) // 2 : y1, (x0 + x1) // 2 : x1] = (255, 0, 0)
    assert np.abs(got.astype(int) - wanted).mean() < 8
    edge = np.abs(got.astype(int) - wanted).max(axis=2) > 60
    assert edge.mean() < 0.05


def test_a_video_cut_off_gives_what_it_has(tmp_path):
    a_video(tmp_path / "a.mp4", count=60)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: int(len(whole) * 0.7)])
    got = []
    with pytest.raises(VideoError, match="cut off|damaged"):
        for frame in frames(tmp_path / "b.mp4"):
            got.append(frame)
    assert 0 < len(got) < 60


@pytest.mark.parametrize(("data", "why"), [(b"", r"is empty \(0 bytes\)"), (b"I am text", "cannot be read as a video")])
def test_what_is_no_video_says_so(data, why, tmp_path):
    (tmp_path / "x.mp4").write_bytes(data)
    with pytest.raises(VideoError, match=rf"x\.mp4: {why}"):
        list(frames(tmp_path / "x.mp4"))


def test_no_camera_says_so():
    with pytest.raises(VideoError, match="camera 97: does not answer"):
        list(frames(97))


def test_a_failed_video_leaves_nothing_and_ctrl_c_keeps_it(tmp_path):
    for kind, left in ((ZeroDivisionError, []), (KeyboardInterrupt, ["a.mp4"])):
        with pytest.raises(kind), VideoWriter(tmp_path / "a.mp4", 32, 32) as writer:
            writer.write(np.zeros((32, 32, 3), np.uint8), 0.0)
            raise kind
        assert [path.name for path in tmp_path.iterdir()] == left


class FullDisk:
    """In place of a stream: no more can be written."""

    @staticmethod
    def encode() -> None:
        raise OSError(28, "No space left on device")


def test_a_matrix_and_foreign_byte_order_are_read():
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert np.array_equal(read_image(grey.view(np.matrix)), read_image(grey))
    assert np.array_equal(read_image((grey.astype(np.uint16) * 257).astype(">u2")), read_image(grey))


@pytest.mark.skipif(sys.platform != "linux", reason="open files are found in /proc")
def test_a_failed_video_leaves_no_file_open(tmp_path, monkeypatch):
    def opened() -> bool:
        return any(str(tmp_path) in str(link.resolve()) for link in Path("/proc/self/fd").iterdir())

    for kind in (ZeroDivisionError, OutputError):
        with pytest.raises(kind), VideoWriter(tmp_path / "a.mp4", 32, 32) as writer:
            for number in range(80):
                writer.write(np.zeros((32, 32, 3), np.uint8), number / 25)
            assert opened()
            if kind is ZeroDivisionError:
                raise kind
            monkeypatch.setattr(writer, "_stream", FullDisk)
        assert not opened()
        assert list(tmp_path.iterdir()) == []


def test_a_panel_says_what_is_not_certain():
    """In a line of its own; nothing of a model that answers valence and arousal alone."""
    image = np.full((300, 300, 3), 90, np.uint8)

    def drawn(label: str, threshold: float) -> np.ndarray:
        read = an_expression(confidence=0.6)
        shares = np.full_like(read.probabilities, np.nan) if label == "unknown" else read.probabilities
        return draw(image, [a_face(expression=replace(read, probabilities=shares, threshold=threshold))])

    sure, doubted = drawn("happiness", 0.5), drawn("happiness", 0.7)
    lowest = [np.flatnonzero((picture != 90).any(axis=(1, 2))).max() for picture in (sure, doubted)]
    assert lowest[1] > lowest[0] + 5
    assert np.array_equal(drawn("unknown", 0.5), drawn("unknown", 0.0))


@pytest.mark.parametrize("size", [(30, 40), (300, 300), (900, 1600)])
def test_drawing_marks_a_new_picture(size):
    image = np.full((*size, 3), 90, np.uint8)
    faces = [a_face(), a_face(box=(-20.0, -20.0, 25.0, 25.0), expression=None)]
    drawn = draw(image, faces)
    assert drawn.shape == image.shape
    assert (image == 90).all()
    assert (drawn != 90).any()
    assert np.array_equal(draw(image, []), image)
    assert drawn.flags.writeable


@pytest.mark.parametrize("box", [(380, 100, 640, 700), (300, 60, 700, 720)])
def test_a_panel_that_fits_beside_a_large_face_covers_none_of_it(box):
    """Too wide for either side at its usual size, too low a picture for above and below: it is drawn smaller."""
    image = np.full((768, 1024, 3), 90, np.uint8)
    drawn, (x0, y0, x1, y1) = draw(image, [a_face(box=tuple(map(float, box)))]), box
    assert (drawn[y0 + 9 : y1 - 9, x0 + 9 : x1 - 9] == 90).all()
    assert (drawn[:, : x0 - 9] != 90).any() or (drawn[:, x1 + 9 :] != 90).any()


@pytest.mark.parametrize("kind", [".webp", ".jpg", ".png", ".tiff", ".bmp"])
def test_a_file_cut_anywhere_is_one_clear_error(kind):
    """In its header as in its body: a batch goes on with the next picture."""
    data = cv2.imencode(kind, np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))[1].tobytes()
    for length in range(1, 60, 7):
        with pytest.raises(ImageError, match="the bytes given"):
            read_image(data[:length])


def test_postscript_reaches_no_other_program(monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was asked"))
    with pytest.raises(ImageError, match="not an image of a known form"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n")
