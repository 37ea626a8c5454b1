"""The page's JavaScript does what Python does: resizing, crop, decoding, reading."""

import base64
import csv
import io
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from apps.browsing import WEB, difference, packed, smaller, unpacked
from builders import a_face
from mien.apps.page import site
from mien.faces import Expression, Face, FaceRecord, Frame, face_record
from mien.runtime.detect import GridDetector, _resized, _suppress, decode
from mien.runtime.read import load
from mien.runtime.store import ENTRIES, locate, model_file
from mien.runtime.table import TableSink
from mien.runtime.track import Smoother
from mien.spec import CropSpec
from mien.vision.align import crop, crop_matrix, framed

GOLDEN = Path(__file__).parent / "golden_chips.json"
POINTS = ((0.3166, 0.3939), (0.6834, 0.3939), (0.5, 0.5964), (0.344, 0.7443), (0.656, 0.7443))
SPECS = [
    CropSpec(width=48, height=48, align="five", points=POINTS, colour="grey"),
    CropSpec(width=48, height=48, align="five", points=POINTS, margin=0.3),
    CropSpec(width=64, height=80, align="eyes", points=POINTS, margin=0.1, colour="lightness"),
    CropSpec(width=96, height=64, margin=0.2, shift=(0.05, -0.1)),
]


def plain(value):
    return json.loads(msgspec.json.encode(value))


def as_task(image, face, spec):
    points = None if face.landmarks is None else np.asarray(face.landmarks, float).tolist()
    return {
        "do": "crop",
        "image": packed(image),
        "face": {"box": list(face.box), "landmarks": points},
        "spec": plain(spec),
    }


def a_turned_face(rng, shape):
    """A face of any size, turned, shifted, maybe half outside the picture."""
    size = rng.uniform(8, 1.4 * min(shape[:2]))
    turn = rng.uniform(-0.8, 0.8)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = rng.uniform(-0.1, 1.1, 2) * (shape[1], shape[0])
    points = (np.array(POINTS) - 0.5) * size @ spin.T + centre + rng.normal(0, size / 60, (5, 2))
    return Face((*(centre - size / 2), *(centre + size * rng.uniform(0.4, 0.6))), landmarks=points.astype(np.float32))


def test_chips_differ_by_two_grey_levels_at_most(javascript, example):
    rng = np.random.default_rng(0)
    image = smaller(example, 0.5)
    cases = [(a_turned_face(rng, image.shape), spec) for spec in SPECS for _ in range(12)]
    answers = javascript([as_task(image, face, spec) for face, spec in cases])
    for (face, spec), answer in zip(cases, answers, strict=True):
        assert np.allclose(np.reshape(answer["matrix"], (2, 3)), crop_matrix(face, spec), rtol=1e-9, atol=1e-7)
        assert difference(unpacked(answer), crop(image, face, spec)) <= 2


def test_the_golden_chips(javascript):
    """Chips written once by Python (golden_chips.py): both languages still make them."""
    cases = json.loads(GOLDEN.read_text())
    assert len(cases) == len(SPECS)
    for case, answer in zip(cases, javascript(cases), strict=True):
        image = np.frombuffer(base64.b64decode(case["image"]["bytes"]), np.uint8)
        image = image.reshape(case["image"]["height"], case["image"]["width"], 3)
        spec = msgspec.convert(case["spec"], CropSpec)
        wanted = unpacked(case["chip"])
        face = Face(tuple(case["face"]["box"]), landmarks=np.array(case["face"]["landmarks"], np.float32))
        assert difference(crop(image, face, spec), wanted) <= 1
        assert difference(unpacked(answer), wanted) <= 2


@pytest.mark.parametrize("scale", [0.13, 0.37, 0.5, 0.75, 1.0, 1.7])
def test_pictures_are_resized_alike(javascript, example, scale):
    image = smaller(example, 0.4)
    [answer] = javascript([{"do": "resize", "image": packed(image), "scale": scale}])
    assert difference(unpacked(answer), _resized(image, scale)) <= 1


def test_a_whole_picture_is_framed_alike(javascript):
    answers = javascript([{"do": "framed", "shape": [70, 90], "spec": plain(spec)} for spec in SPECS])
    for spec, answer in zip(SPECS, answers, strict=True):
        face = framed((70, 90), spec)
        assert np.allclose(answer["box"], face.box)
        assert answer["landmarks"] is None or np.allclose(answer["landmarks"], face.landmarks)


def test_the_decoder_finds_the_same_faces(javascript):
    rng = np.random.default_rng(1)
    outputs = []
    for stride in (8, 16, 32):
        cells = (128 // stride) * (96 // stride)
        outputs += [rng.random((cells, 1)) ** 4, rng.random((cells, 1)) ** 4]
        outputs += [rng.normal(0, 0.6, (cells, 4)), rng.normal(0, 1, (cells, 10))]
    outputs = [array.astype(np.float32) for array in outputs]
    boxes, points, scores = decode([array[None] for array in outputs], 128, 0.3)
    keep = _suppress(boxes, scores, 0.3)
    task = {"do": "decode", "width": 128, "threshold": 0.3, "overlap": 0.3}
    [faces] = javascript([{**task, "outputs": [array.astype(float).ravel().tolist() for array in outputs]}])
    assert 3 < len(keep) == len(faces)
    assert np.allclose([face["box"] for face in faces], boxes[keep], atol=1e-3)
    assert np.allclose([face["landmarks"] for face in faces], points[keep], atol=1e-3)
    assert np.allclose([face["score"] for face in faces], scores[keep], atol=1e-6)


@pytest.mark.usefixtures("engine")
def test_a_photograph_is_read_alike(javascript, example):
    reader = load(threads=1)
    assert isinstance(reader.detector, GridDetector)
    models = {"models/model.onnx": model_file("ferplus-small"), "models/detector.onnx": locate(ENTRIES["mien-face"])}
    pictures = [example, smaller(example, 0.3), np.hstack([smaller(example, 0.5)] * 4)]
    task = {"do": "read", "site": plain(site(reader)), "models": {name: str(path) for name, path in models.items()}}
    answers = javascript([{**task, "image": packed(image)} for image in pictures])
    for image, answer in zip(pictures, answers, strict=True):
        faces = [face_record(face) for face in reader(image)]
        records = msgspec.convert(answer, list[FaceRecord])
        assert len(records) == len(faces) > 0
        for mine, theirs in zip(faces, records, strict=True):
            assert np.allclose(mine.box, theirs.box, atol=0.02 * (mine.box[3] - mine.box[1]))
            assert mine.expression.label == theirs.expression.label
            assert list(mine.expression.probabilities) == list(theirs.expression.probabilities)
            gap = [abs(p - theirs.expression.probabilities[name]) for name, p in mine.expression.probabilities.items()]
            assert max(gap) < 0.03
            assert abs(mine.expression.valence - theirs.expression.valence) < 0.03


@pytest.mark.usefixtures("engine")
def test_a_model_file_that_is_not_the_described_one_is_an_error(javascript, example):
    about = plain(site(load(threads=1, detector="whole")))
    task = {"do": "read", "site": about, "models": {"models/model.onnx": str(model_file("fer2013-nano"))}}
    with pytest.raises(AssertionError, match="gives 7 probabilities, its description has 8 labels: reload the page"):
        javascript([{**task, "image": packed(example)}])


def test_the_page_averages_as_python_does(javascript):
    """One odd first reading of a person is one of many, however irregularly they come."""
    rng, labels = np.random.default_rng(0), ("happiness", "anger")
    times = np.cumsum([0.0, *rng.uniform(0.02, 0.4, 20)])
    happy, felt = np.array([0.1, *rng.uniform(0.6, 1.0, 20)]), rng.uniform(-1, 1, (21, 2))
    frames = []
    for t, h, (v, a) in zip(times.tolist(), happy.tolist(), felt.tolist(), strict=True):
        shares = {"happiness": h, "anger": 1 - h}
        said = {"label": max(shares, key=shares.get), "probabilities": shares, "valence": v, "arousal": a}
        said["certain"] = max(shares.values()) >= 0.75
        frames.append({"seconds": t, "faces": [{"box": [10, 10, 60, 60], "expression": said}]})
    [shown] = javascript([{"do": "follow", "frames": frames, "threshold": 0.75}])
    smoother = Smoother(0.33)
    for frame, [face], h, (v, a) in zip(frames, shown, happy, felt, strict=True):
        read = Expression(labels, np.array([h, 1 - h], np.float32), float(v), float(a), threshold=0.75)
        [wanted] = smoother([Face((10, 10, 60, 60), 0.9, expression=read, track=1)], frame["seconds"])
        calm = face["calm"]
        assert face["track"] == 1
        assert calm["probabilities"]["happiness"] == pytest.approx(float(wanted.expression.probabilities[0]), abs=1e-6)
        assert (calm["valence"], calm["arousal"]) == pytest.approx(
            (wanted.expression.valence, wanted.expression.arousal)
        )
        assert calm["label"] == wanted.expression.label
        assert calm["certain"] == wanted.expression.certain
    assert {face["calm"]["certain"] for [face] in shown} == {True, False}


def test_rows_that_are_left_out_are_counted(javascript):
    assert javascript([{"do": "keep", "frames": [1, 2, 3, 4, 5], "most": 3}]) == [{"frames": [3, 4, 5], "left": 2}]
    assert javascript([{"do": "keep", "frames": [1, 2, 3], "most": 3}]) == [{"frames": [1, 2, 3], "left": 0}]


def test_tables_name_a_file_as_it_is_called(javascript, tmp_path):
    """Also where a spreadsheet would take it for a formula: a name that is made plain is no longer that of the file."""
    names = ["=1+1.png", "-a.png", "@b.png", 'two, "three".png']
    [text] = javascript([{"do": "table", "site": plain(site(load(threads=1))), "frames": [
        {"image": name, "index": "", "seconds": "", "faces": []} for name in names
    ]}])  # fmt: skip
    assert [row["image"] for row in csv.DictReader(io.StringIO(text))] == names
    for number, name in enumerate(names):
        with TableSink(tmp_path / f"{number}.csv", ("happiness",), image=name) as sink:
            sink.write(Frame(np.zeros((8, 8, 3), np.uint8)), [])
        assert [row["image"] for row in csv.DictReader((tmp_path / f"{number}.csv").open())] == [name]


def test_a_picture_to_keep_says_what_is_not_certain(javascript):
    sure = msgspec.to_builtins(face_record(a_face()))
    faces = (sure, {**sure, "expression": {**sure["expression"], "certain": False}})
    for words, said in zip(javascript([{"do": "annotated", "faces": [face]} for face in faces]), (0, 1), strict=True):
        assert words.count("not certain") == said


@pytest.mark.parametrize(
    ("width", "height", "room", "scale"),
    [
        (3000, 2000, 4e7, 1),
        (8000, 10000, 4e7, 0.5**0.5),
        (8192, 4096, 2e7, 0.5),
        (3000, 2000, 5e6, None),
        (9, 9, 0, None),
    ],
)
def test_a_picture_is_made_as_small_as_the_browser_asks_and_never_larger(width, height, room, scale, javascript):
    [said] = javascript([{"do": "picture", "width": width, "height": height, "room": room}])
    assert said == (pytest.approx(scale) if scale else "a.jpg: this browser has no room left for it: close other pages, or give a smaller one.")  # fmt: skip


def test_a_worker_that_breaks_down_keeps_nobody_waiting(javascript):
    [said] = javascript([{"do": "broken", "message": "out of memory"}])
    assert said == ["What reads the pictures broke down (out of memory): reload the page."] * 2


def test_the_page_is_made_of_small_modules():
    """No file over 300 lines, no address of another machine."""
    for path in [*WEB.glob("*.js"), *WEB.glob("*.css"), *WEB.glob("*.html")]:
        text = path.read_text()
        assert text.count("\n") < 300, path
        assert "//cdn" not in text
        assert text.count("http://") == text.count("http://www.w3.org/2000/svg"), path
        assert "https://" not in text, path
