"""What speaks for a label: covering, a model's own maps, the picture of it, and features in tables."""

import csv

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import a_face, a_run, an_expression, drawn_face
from mien.data.synthetic import FRAMING
from mien.errors import ConfigError, ModelError, OutputError
from mien.export.onnx import export_onnx
from mien.faces import Expression, Face
from mien.runtime.classify import Classifier
from mien.runtime.explain import GRID, heat_of_maps, occlusion
from mien.runtime.fakes import FakeSession
from mien.runtime.features import FeatureTable
from mien.runtime.sessions import OnnxSession
from mien.spec import CropSpec, ModelSpec
from mien.vision.align import crop
from mien.vision.draw import draw_heat

SPEC = ModelSpec(name="spot", labels=("x", "y"), crop=CropSpec(width=32, height=32))


def spotter(chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Says x as far as the square of rows 16 to 24, columns 4 to 12 is bright."""
    share = 0.05 + 0.9 * chips[:, 0, 16:24, 4:12].mean(axis=(1, 2)) / 255
    return np.stack([share, 1 - share], 1), np.full((len(chips), 2), np.nan)


def a_chip() -> np.ndarray:
    chip = np.zeros((32, 32, 3), np.uint8)
    chip[16:24, 4:12] = 255
    return chip


def test_covering_finds_what_the_model_looks_at():
    classifier = Classifier(FakeSession(spec=SPEC, answer=spotter), explain=True)
    [read] = classifier.read([a_chip()])
    assert read.heat.shape == (GRID, GRID)
    warm = np.argwhere(read.heat > 0.5 * read.heat.max())
    assert (warm.min(axis=0) >= (3, 0)).all()
    assert (warm.max(axis=0) <= (6, 3)).all()
    assert np.allclose(read.heat[:3, 4:], 0, atol=1e-6)


def test_heat_falls_where_covering_helps():
    heat = occlusion(Classifier(FakeSession(spec=SPEC, answer=spotter)).run, a_chip(), said=1)
    assert heat.min() < -0.5
    assert heat.max() <= 1e-6


def test_a_label_s_heat_is_against_the_others():
    maps = np.random.default_rng(0).normal(0, 1, (2, 4, 3, 3))
    heat = heat_of_maps(maps, np.array([2, 0]))
    assert np.allclose(heat[0], maps[0, 2] - maps[0, [0, 1, 3]].mean(axis=0), atol=1e-6)
    assert np.allclose(heat_of_maps(maps + 5, np.array([2, 0])), heat, atol=1e-5)


@pytest.fixture
def full(tmp_path):
    """A model file with maps and features."""
    run = a_run(tmp_path / "run")
    export_onnx(run / "weights.safetensors", tmp_path / "full.onnx", outputs=("maps", "features"))
    export_onnx(run / "weights.safetensors", tmp_path / "plain.onnx")
    return tmp_path / "full.onnx"


def test_a_model_s_own_maps_are_used(full):
    session = OnnxSession(full, 1)
    chip = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    reads = Classifier(session, batch=2, explain=True, features=True).read([chip, chip[:, ::-1], chip])
    _, _, maps, features = session.run_all(chip.transpose(2, 0, 1)[None].astype(np.float32))
    said = reads[0].labels.index(reads[0].label)
    assert np.allclose(reads[2].heat, heat_of_maps(maps, np.array([said]))[0], atol=1e-4)
    assert np.allclose(reads[2].features, features[0], atol=1e-4)
    plain = Classifier(session).read([chip])[0]
    assert (plain.heat, plain.features) == (None, None)


def test_what_a_file_does_not_give_is_said(full):
    plain = OnnxSession(full.with_name("plain.onnx"), 1)
    with pytest.raises(ModelError, match="gives no features; make one that does: mien export --features"):
        Classifier(plain, features=True)
    assert Classifier(plain, explain=True).read([np.zeros((32, 32, 3), np.uint8)])[0].heat.shape == (GRID, GRID)
    silent = FakeSession(spec=ModelSpec(name="va", labels=("x", "y"), crop=SPEC.crop, expression=False))
    with pytest.raises(ModelError, match="no label to explain"):
        Classifier(silent, explain=True)


def hot_face(spot, box=(40.0, 30.0, 104.0, 94.0)) -> Face:
    heat = np.zeros((8, 8), np.float32)
    heat[spot] = 1
    return a_face(box, expression=Expression(("x", "y"), np.array([0.9, 0.1], np.float32), heat=heat))


@pytest.mark.parametrize("spot", [(1, 2), (6, 5), (4, 0)])
def test_heat_lies_where_the_chip_lies(spot):
    image = np.full((120, 160, 3), 128, np.uint8)
    drawn = draw_heat(image, [hot_face(spot)], SPEC.crop)
    changed = np.abs(drawn.astype(int) - 128).sum(axis=2)
    y, x = np.unravel_index(changed.argmax(), changed.shape)
    cell = 64 / 8
    assert abs(y + 0.5 - (30 + (spot[0] + 0.5) * cell)) <= cell / 2
    assert abs(x + 0.5 - (40 + (spot[1] + 0.5) * cell)) <= cell / 2
    assert changed[:28].max() == changed[:, 106:].max() == 0


def test_heat_turns_with_a_leaning_face():
    image = np.full((200, 200, 3), 90, np.uint8)
    points = np.array(FRAMING.points) * 80 - 40
    turn = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    face = hot_face((1, 6), (60.0, 60.0, 140.0, 140.0))
    face = Face(face.box, landmarks=(points @ turn.T + 100).astype(np.float32), expression=face.expression)
    spec = CropSpec(width=32, height=32, align="five", points=FRAMING.points)
    back = crop(draw_heat(image, [face], spec), face, spec).astype(int)
    away = np.abs(back - 90).sum(axis=2)
    y, x = np.unravel_index(away.argmax(), away.shape)
    assert abs(y + 0.5 - 6) <= 2
    assert abs(x + 0.5 - 26) <= 2


def test_heat_s_colours_rise_in_lightness():
    image = np.full((64, 64, 3), 60, np.uint8)
    ramp = np.repeat(np.linspace(0, 1, 8, dtype=np.float32)[None], 8, axis=0)
    face = a_face((0.0, 0.0, 64.0, 64.0), expression=Expression(("x", "y"), np.array([1.0, 0]), heat=ramp))
    lightness = cv2.cvtColor(draw_heat(image, [face], SPEC.crop), cv2.COLOR_RGB2LAB)[32, 10:54, 0].astype(int)
    assert (np.diff(lightness) >= -1).all()
    assert lightness[-1] - lightness[0] > 80


def test_nothing_that_speaks_for_it_leaves_the_picture_as_it_is():
    image = drawn_face(64)
    cold = a_face(expression=Expression(("x", "y"), np.array([1.0, 0]), heat=-np.ones((8, 8), np.float32)))
    for face in (a_face(), cold, Face((0.0, 0.0, 9.0, 9.0))):
        assert np.array_equal(draw_heat(image, [face], SPEC.crop), image)


def with_features(count: int = 3) -> list[Face]:
    found = []
    for number in range(count):
        plain = an_expression(confidence=0.8)
        vector = np.arange(5, dtype=np.float32) + number / 8
        found.append(
            a_face(expression=Expression(plain.labels, plain.probabilities, float("nan"), 0.25, 0.9, None, vector))
        )
    return found


def test_features_as_csv_and_parquet_say_the_same(tmp_path):
    for name in ("f.CSV", "f.Parquet"):
        with FeatureTable(tmp_path / name) as table:
            table.write("a.jpg", with_features(2))
            table.write("b.jpg", [])
            table.write("c.jpg", with_features(1))
    with (tmp_path / "f.CSV").open() as file:
        rows = list(csv.DictReader(file))
    kept = pq.read_table(tmp_path / "f.Parquet").to_pylist()
    assert [(row["image"], int(row["face"])) for row in rows] == [("a.jpg", 0), ("a.jpg", 1), ("c.jpg", 0)]
    for ours, theirs in zip(rows, kept, strict=True):
        assert [float(ours[f"f{i}"]) for i in range(5)] == theirs["features"]
        assert (ours["label"], ours["certain"], ours["valence"]) == ("happiness", "0", "")
        assert float(ours["confidence"]) == pytest.approx(theirs["confidence"], abs=1e-6)
        assert float(ours["x1"]) == theirs["x1"]


def test_a_table_of_features_is_whole_or_not_there(tmp_path):
    with pytest.raises(KeyError), FeatureTable(tmp_path / "f.csv") as table:
        table.write("a.jpg", with_features())
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), FeatureTable(tmp_path / "c.csv") as table:
        table.write("a.jpg", with_features())
        raise KeyboardInterrupt
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 4
    for name in ("e.csv", "e.parquet"):
        with FeatureTable(tmp_path / name):
            pass
    assert pq.read_table(tmp_path / "e.parquet").num_rows == 0
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 1
    with pytest.raises(OutputError, match="exists already"), FeatureTable(tmp_path / "e.csv"):
        pass
    with pytest.raises(ConfigError, match=r"written as \.csv or \.parquet"):
        FeatureTable(tmp_path / "f.txt")


def test_a_table_of_features_may_have_a_name_that_is_no_utf8(odd_name, tmp_path):
    for name, faces in ((f"{odd_name}.parquet", with_features(2)), (f"{odd_name}-empty.parquet", [])):
        with FeatureTable(tmp_path / name) as table:
            table.write("a.jpg", faces)
        with (tmp_path / name).open("rb") as file:
            assert pq.read_table(file).num_rows == len(faces)


def test_predict_explains_and_keeps_features(mien, full, tmp_path):
    assert full.is_file()
    cv2.imwrite(str(tmp_path / "a.png"), drawn_face(96))
    words = ("predict", "a.png", "--detector", "whole", "--threads", 1)
    for model in ("full.onnx", "plain.onnx"):
        code, _, err = mien(*words, "--model", model, "--explain", "--save", f"out-{model}")
        assert (code, err) == (0, "")
        code, _, _ = mien(*words, "--model", model, "--save", f"bare-{model}")
        hot, bare = (cv2.imread(str(tmp_path / f"{kind}-{model}" / "a.jpg")) for kind in ("out", "bare"))
        assert np.abs(hot.astype(int) - bare).mean() > 1
    code, out, _ = mien(*words, "--model", "full.onnx", "--features", "f.parquet")
    assert (code, "features: f.parquet" in out) == (0, True)
    assert len(pq.read_table("f.parquet")["features"][0]) == 48
    code, _, err = mien(*words, "--model", "plain.onnx", "--features", "g.csv")
    assert (code, "gives no features" in err) == (2, True)
    code, _, err = mien(*words, "--explain")
    assert (code, "--save" in err) == (2, True)


def test_predict_says_what_is_not_certain(mien, full, tmp_path):
    from mien.export.calibrate import export_calibrated

    cv2.imwrite(str(tmp_path / "a.png"), drawn_face(96))
    export_calibrated(full, tmp_path / "never.onnx", threshold=1.0)
    words = ("predict", "a.png", "--detector", "whole", "--model")
    assert "(not certain)" in mien(*words, "never.onnx")[1]
    assert '"certain":false' in mien(*words, "never.onnx", "--json")[1]
    assert "(not certain)" not in mien(*words, "full.onnx")[1]
