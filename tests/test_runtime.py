"""Looking: detectors, store, sessions, classifier, reader, sinks."""

import csv
import hashlib
import http.server
import threading

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import mien
from builders import LABELS, a_face, a_video, drawn_face
from mien.errors import ConfigError, ModelError, ModelNotFound, OutputError
from mien.faces import Frame, ImageRecord
from mien.runtime import store
from mien.runtime.classify import Classifier
from mien.runtime.detect import GridDetector, WholeImage, open_detector
from mien.runtime.fakes import FakeDetector, FakeSession
from mien.runtime.read import Reader
from mien.runtime.sessions import OnnxSession
from mien.runtime.sinks import TableSink, VideoSink, json_line
from mien.spec import CropSpec, ModelSpec, encode
from mien.vision.image import read_image

SPEC = ModelSpec(name="tiny", labels=("x", "y"), crop=CropSpec(width=8, height=8))


def a_model(path, spec=SPEC, width=2):
    """A tiny ONNX file in mien's form: the mean light decides."""
    nodes = [
        helper.make_node("ReduceMean", ["chips"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("MatMul", ["column", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("MatMul", ["probabilities", "means"], ["affect"]),
    ]
    values = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("weights", TensorProto.FLOAT, [1, width], [0.01 * i for i in range(width)]),
        helper.make_tensor("means", TensorProto.FLOAT, [width, 2], [0.1] * (2 * width)),
    ]
    chips = helper.make_tensor_value_info("chips", TensorProto.FLOAT, ["n", 3, 8, 8])
    outputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", w])
        for n, w in (("probabilities", width), ("affect", 2))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", [chips], outputs, values), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    if spec is not None:
        helper.set_model_props(model, {"mien": encode(spec).decode()})
    onnx.save(model, str(path))
    return path


def test_a_model_file_answers(tmp_path):
    probabilities, affect = OnnxSession(a_model(tmp_path / "m.onnx"), 1).run(np.full((3, 3, 8, 8), 200, np.float32))
    assert probabilities.shape == (3, 2)
    assert np.allclose(affect, 0.1)
    assert probabilities[0, 1] > 0.8


@pytest.mark.parametrize(
    ("spec", "width", "message"),
    [
        (None, 2, "no mien model"),
        (SPEC, 3, "altered: its outputs"),
        (msgspec.structs.replace(SPEC, crop=CropSpec(width=16, height=8)), 2, "altered: its input"),
        (msgspec.structs.replace(SPEC, format=99), 2, "pip install -U mien"),
    ],
)
def test_a_file_that_is_no_mien_model_says_so(spec, width, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        OnnxSession(a_model(tmp_path / "m.onnx", spec, width), 1)


def test_rubbish_is_no_model(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"rubbish")
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        OnnxSession(tmp_path / "m.onnx")
    with pytest.raises(ModelNotFound, match="did you mean 'ferplus-small'"):
        mien.load("ferplus-smal")


def test_the_classifier_keeps_faces_and_order():
    faces = [a_face(box=(i, i, i + 30.0, i + 30.0), expression=None) for i in range(5)]
    read = Classifier(FakeSession("anger"), batch=2)(drawn_face(), faces)
    assert [face.box for face in read] == [face.box for face in faces]
    assert {face.expression.label for face in read} == {"anger"}
    assert Classifier(FakeSession())(drawn_face(), []) == []


def test_probabilities_that_are_no_numbers_are_an_error():
    with pytest.raises(ModelError, match="not numbers"):
        Classifier(FakeSession(confidence=float("nan")))(drawn_face(), [a_face()])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((np.ones((1, 3)) / 3, np.zeros((1, 2))), r"answered 1 chips with \(1, 3\) probabilities and \(1, 2\) affect"),
        ((np.ones((1, 8)) / 8, np.zeros((1, 1))), r"affect; its spec has 8 labels"),
        ((np.arange(8.0)[None], np.zeros((1, 2))), "do not sum to one; a session gives probabilities, not logits"),
    ],
)
def test_a_session_of_ones_own_that_answers_something_else_is_an_error(answer, message):
    with pytest.raises(ModelError, match=message):
        Classifier(FakeSession(answer=lambda _: answer))(drawn_face(), [a_face()])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": None}, "model: NoneType None: give a name, a file or a Session"),
        ({"model": FakeSession}, "model: the class FakeSession: give"),
        ({"detector": 3}, "detector: int 3: give a name or a Detector"),
        ({"detector": FakeDetector}, "detector: the class FakeDetector: give"),
        ({"detector": __file__}, "give a file as detector_file"),
        ({"threads": "2"}, "threads: '2': give a whole number"),
        ({"threads": -1}, "threads: -1: give a whole number"),
        ({"min_size": "20"}, "min_size: '20' is no number"),
        ({"device": 0}, "device: 0 is no text"),
        ({"engine": None}, "engine: None is no text"),
    ],
)
def test_a_wrong_argument_of_load_is_told(given, message):
    with pytest.raises(ConfigError, match=message):
        mien.load(**{"model": FakeSession(), **given})


def test_a_reader_takes_every_kind_of_image(tmp_path):
    reader = Reader(FakeDetector([a_face(expression=None)]), Classifier(FakeSession()))
    cv2.imwrite(str(tmp_path / "a.png"), drawn_face())
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), drawn_face()]
    assert [faces[0].expression.label for faces in reader.many(kinds)] == ["happiness"] * 4
    with pytest.raises(ConfigError, match="many: expected several images"):
        reader.many(str(tmp_path / "a.png"))
    for one in (drawn_face(), Image.fromarray(drawn_face())):
        with pytest.raises(ConfigError, match="many: expected several images"):
            reader.many(one)
    several = (np.stack([drawn_face()] * 3), np.zeros((3, 48, 48), np.uint8), np.array([str(tmp_path / "a.png")] * 3))
    assert [len(list(reader.many(images))) for images in several] == [3, 3, 3]


def test_a_whole_image_is_one_face():
    session = FakeSession()
    chip = np.repeat(drawn_face(48)[..., :1], 3, axis=2)
    Reader(WholeImage(session.spec.crop), Classifier(session))(chip)
    assert np.array_equal(session.seen[0][0].transpose(1, 2, 0), chip)


def test_watching_gives_true_seconds(tmp_path):
    times = a_video(tmp_path / "a.mp4", gaps=[0.04, 0.5, 0.1])
    reader = Reader(FakeDetector([a_face(expression=None)]), Classifier(FakeSession()))
    seen = list(reader.watch(tmp_path / "a.mp4", every=2))
    assert [frame.index for frame, _ in seen] == [0, 2]
    assert np.allclose([frame.seconds for frame, _ in seen], times[::2], atol=2e-3)
    assert set(reader.times.seconds) == {"decode", "detect", "classify", "track"}


def test_the_json_form_is_the_schema():
    line = json_line([a_face()], "a.jpg")
    assert msgspec.json.decode(line, type=ImageRecord).faces[0].expression.label == "happiness"
    assert '"index":3,"seconds":0.12' in json_line([], frame=Frame(drawn_face(), 3, 0.12))


def test_tables_hold_a_row_a_face(tmp_path):
    frame = Frame(drawn_face(), 7, 0.28)
    with TableSink(tmp_path / "t.csv", LABELS) as sink:
        sink.write(frame, [a_face(), a_face(expression=None)])
        sink.write(frame, [])
        assert not (tmp_path / "t.csv").exists()
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [(row["face"], row["label"]) for row in rows] == [("0", "happiness"), ("1", ""), ("", "")]
    assert (rows[0]["index"], rows[0]["seconds"], rows[0]["p_happiness"]) == ("7", "0.28", "0.9")
    with pytest.raises(OutputError, match="exists already"):
        TableSink(tmp_path / "t.csv", LABELS)


@pytest.mark.parametrize(("kind", "kept"), [(KeyboardInterrupt, True), (ZeroDivisionError, False)])
def test_ctrl_c_keeps_what_was_written_and_a_failure_nothing(kind, kept, tmp_path):
    frame = Frame(drawn_face(), 0, 0.0)
    sinks = [TableSink(tmp_path / "t.jsonl", LABELS), VideoSink(tmp_path / "t.mp4", 25)]
    for sink in sinks:
        with pytest.raises(kind), sink:
            sink.write(frame, [a_face()])
            raise kind
    assert {path.name for path in tmp_path.iterdir()} == ({"t.jsonl", "t.mp4"} if kept else set())


@pytest.fixture
def server(tmp_path):
    """A local server of one folder: (address, folder)."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def test_fetching_verifies(server, monkeypatch):
    monkeypatch.delenv("MIEN_OFFLINE")
    address, folder = server
    (folder / "good").write_bytes(b"weights")
    (folder / "bad").write_bytes(b"weightz")
    entry = store.Entry(
        name="e", kind="detector", file="e.onnx", licence="", about="", urls=(f"{address}/none",),
        sha256=hashlib.sha256(b"weights").hexdigest(), size=7,
    )  # fmt: skip
    with pytest.raises(ModelError, match="expected .*; not used"):
        store.fetch(entry, [f"{address}/bad"])
    with pytest.raises(ModelNotFound, match="by hand"):
        store.fetch(entry)
    path = store.fetch(entry, [f"{address}/none", f"{address}/good"])
    assert path.read_bytes() == b"weights"
    path.write_bytes(b"altered")
    with pytest.raises(ModelError, match="altered"):
        store.fetch(entry)


def test_auto_is_the_detector_inside_the_package():
    detector = open_detector("auto", SPEC.crop)
    assert isinstance(detector, GridDetector)
    assert detector.spec.name == "mien-face"
    with pytest.raises(ModelNotFound, match="offline"):
        open_detector("yunet", SPEC.crop)
    with pytest.raises(ConfigError, match="did you mean 'yunet'"):
        open_detector("yunett", SPEC.crop)


def test_yunet_decodes_as_opencv_does(test_data, yunet_file):
    image = read_image(test_data / "photos" / "portrait_1.jpg")
    image = cv2.resize(image, (512, 640), interpolation=cv2.INTER_AREA)
    reference = cv2.FaceDetectorYN.create(str(yunet_file.with_name("yunet_n_640_640.onnx")), "", (512, 640), 0.7, 0.3)
    theirs = reference.detect(np.ascontiguousarray(image[..., ::-1]))[1][0]
    [ours] = GridDetector(yunet_file, 1)(image)
    x, y, w, h = theirs[:4]
    assert np.allclose(ours.box, (x, y, x + w, y + h), atol=1.0)
    assert np.allclose(ours.landmarks, theirs[4:14].reshape(5, 2), atol=1.0)


def test_the_photographs_have_their_faces(test_data, yunet_file):
    detector = GridDetector(yunet_file, 1)
    counts = [len(detector(read_image(path))) for path in sorted((test_data / "photos").glob("*.jpg"))]
    assert counts == [6, 1, 1, 3]


def test_faces_that_fill_the_picture_and_tiny_ones_are_found(test_data, yunet_file):
    detector = GridDetector(yunet_file, 1)
    image = read_image(test_data / "photos" / "portrait_1.jpg")
    [face] = detector(image)
    x0, y0, x1, y1 = (round(edge) for edge in face.box)
    large = cv2.resize(image[y0:y1, x0:x1], (900, 1200))
    assert len(detector(large)) == 1
    scale = 20 / face.size
    around = image[max(0, y0 - 200) : y1 + 200, max(0, x0 - 200) : x1 + 200]
    small = cv2.resize(around, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((480, 640, 3), 120, np.uint8)
    canvas[200 : 200 + small.shape[0], 300 : 300 + small.shape[1]] = small
    assert len(detector(canvas)) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (500, 20_000, 3), (3, 900, 3)])
def test_odd_shapes_have_no_face(shape, yunet_file):
    assert GridDetector(yunet_file, 1)(np.zeros(shape, np.uint8)) == []
