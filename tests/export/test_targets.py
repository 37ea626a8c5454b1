"""Every target answers as the model it was made of, within what it allows; or there is no file."""

import errno
import re
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch

from builders import a_run
from mien.errors import ConfigError, ExportError, ModelError, OutputError
from mien.export import targets
from mien.export.calibrate import export_calibrated
from mien.export.ensemble import export_ensemble
from mien.export.graphs import open_graph
from mien.export.onnx import export_onnx
from mien.export.quantize import LEAST, answers, folded, heads_and_stem, layers, quantized
from mien.export.targets import TARGETS, Made, Rows, make, publish, target
from mien.export.tensorrt import OPERATORS, OPSET
from mien.export.verify import Allowed, agreement
from mien.models.network import ExportGraph
from mien.runtime.sessions import OnnxSession, open_session, read_spec
from mien.runtime.store import model_file
from mien.spec import decode_spec

SMALL = model_file("ferplus-small")
NANO = model_file("ferplus-nano")


def drawn_rows(count: int = 2 * LEAST) -> Rows:
    """Drawn faces as the flagship sees them, half to set ranges by."""
    from mien.data.prepare import chips, prepare
    from mien.data.synthetic import synthetic

    manifest = synthetic(count, 3, plain=False)
    pictures = chips(prepare(manifest, read_spec(SMALL).crop, None).chips)
    faces = np.repeat(pictures, 3, axis=-1).transpose(0, 3, 1, 2).astype(np.float32)
    return Rows("drawn", np.ascontiguousarray(faces[::2]), np.ascontiguousarray(faces[1::2]))


@pytest.fixture(scope="module")
def rows() -> Rows:
    return drawn_rows()


@pytest.mark.parametrize("name", ["onnx", "onnx-fp16", "openvino", "tensorrt"])
def test_the_flagship_in_every_float_form(name, mien, tmp_path):
    if name == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    ending = TARGETS[name].suffix.upper() if name == "openvino" else TARGETS[name].suffix  # capitals are the same
    code, out, err = mien("export", "ferplus-small", "--to", name, "--out", f"m{ending}")
    assert code == 0, err
    assert "on noise and gradients: largest difference" in out
    assert "0 of 128 labels flipped" in out
    place = tmp_path / f"m{ending}"
    spec = read_spec(place)
    assert place.with_suffix(".json").is_file()
    assert spec.metrics == read_spec(SMALL).metrics
    assert spec.precision == TARGETS[name].precision
    size = sum(file.stat().st_size for file in tmp_path.glob("m.*"))
    assert size == pytest.approx(SMALL.stat().st_size * (1 if "fp16" in name else 2), rel=0.06)  # it ships in half
    chips = np.random.default_rng(1).uniform(0, 255, (3, 3, 48, 48)).astype(np.float32)
    for a, b in zip(open_session(place, 1).run(chips), OnnxSession(SMALL, 1).run(chips), strict=True):
        assert np.allclose(a, b, atol=TARGETS[name].allowed.largest)


@pytest.fixture(scope="module")
def int8(rows, tmp_path_factory) -> Made:
    """The flagship in int8."""
    return make(SMALL, target("onnx-int8"), tmp_path_factory.mktemp("int8"), "m", rows)


def test_the_flagship_in_int8_computes_with_eight_bits_between_stem_and_heads(int8, tmp_path):
    made = int8
    assert made.difference.chips == LEAST
    assert made.difference.flipped <= 2
    assert (made.spec.precision, made.spec.quantized_on) == ("int8", f"drawn, {LEAST} faces")
    assert made.spec.metrics == {}  # they were the float model's
    assert made.files[0].stat().st_size < 0.6 * SMALL.stat().st_size  # which is in half precision
    graph = onnx.load(made.files[0]).graph
    rounded = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [node.input[1] in rounded for node in convolutions] == [False] + [True] * (len(convolutions) - 1)
    assert not any(node.input[1] in rounded for node in graph.node if node.op_type == "Gemm")
    weights = [onnx.numpy_helper.to_array(item) for item in graph.initializer if item.name.endswith("_quantized")]
    assert max(int(np.abs(item).max()) for item in weights if item.dtype == np.int8) <= 64  # seven bits
    with pytest.raises(ConfigError, match="is int8 already"):
        make(made.files[0], target("onnx-fp16"), tmp_path, "again")


def test_int8_for_openvino_is_the_same_graph(rows, int8, tmp_path):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    made = make(SMALL, target("openvino-int8"), tmp_path, "m", rows)
    assert made.difference.flipped <= 2
    assert (made.spec, made.kept) == (int8.spec, int8.kept)
    assert [file.suffix for file in made.files] == [".xml", ".bin"]
    assert read_spec(made.files[0]) == made.spec
    values = [onnx.numpy_helper.to_array(item) for item in onnx.load(int8.files[0]).graph.initializer]
    eight = sum(array.size for array in values if array.dtype == np.int8)
    floats = sum(array.nbytes for array in values if array.dtype == np.float32)
    kept = re.findall(r'element_type="i8"[^>]* size="(\d+)"', made.files[0].read_text())
    assert sum(map(int, kept)) == eight  # every weight that ONNX Runtime has in eight bits, in eight bits
    assert eight + floats <= made.files[1].stat().st_size < 1.01 * (eight + floats)


def test_where_labels_change_too_often_the_costliest_layers_stay_in_float(tmp_path, monkeypatch):
    monkeypatch.setattr(targets, "_FLIPS", -1)
    export_onnx(a_run(tmp_path / "run") / "weights.safetensors", tmp_path / "tiny.onnx")
    faces = np.random.default_rng(0).uniform(0, 255, (2 * LEAST, 3, 32, 32)).astype(np.float32)
    lenient = msgspec.structs.replace(target("onnx-int8"), allowed=Allowed(None))
    made = make(tmp_path / "tiny.onnx", lenient, tmp_path, "m", Rows("noise", faces[::2], faces[1::2]))
    whole = folded(open_graph(tmp_path / "tiny.onnx")[0])
    names = [node.name for node in layers(whole.graph)]
    assert len(made.kept) == len(names) // 3 > 0
    graph = onnx.load(made.files[0]).graph
    rounded = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    kept = {node.name for node in graph.node if node.op_type == "Conv" and node.input[1] not in rounded}
    assert kept & set(names) == set(made.kept)
    small = quantized(whole, faces[:LEAST])
    said = [answers(graph, faces[:64]) for graph in (whole, small, quantized(whole, faces[:LEAST], made.kept))]
    errors = [float(np.abs(one - said[0]).mean()) for one in said[1:]]
    assert errors[1] < errors[0]


def test_a_file_that_changes_more_than_its_target_allows_is_not_written(rows, tmp_path, monkeypatch):
    def damaged(model, *_):
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        kernel = max(wrong.graph.initializer, key=lambda item: len(item.raw_data))
        kernel.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(kernel), kernel.name))
        return wrong

    monkeypatch.setattr(targets, "quantized", damaged)
    monkeypatch.setattr(targets, "_FLIPS", 1)
    with pytest.raises(ExportError, match=r"of 100 chips with another label than the float model on 100 other faces"):
        make(NANO, target("onnx-int8"), tmp_path, "m", rows)


def drawn_tiny(folder: Path, **section) -> tuple[Path, Rows]:
    """The file of a tiny untrained network, and drawn faces as it sees them."""
    from mien.data.prepare import chips, prepare
    from mien.data.synthetic import synthetic

    export_onnx(a_run(folder / "run", **section) / "weights.safetensors", folder / "tiny.onnx")
    pictures = chips(prepare(synthetic(2 * LEAST, 3, plain=False), read_spec(folder / "tiny.onnx").crop, None).chips)
    faces = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32)
    return folder / "tiny.onnx", Rows("drawn", faces[::2], faces[1::2])


def without_affect(model: onnx.ModelProto, *_) -> onnx.ModelProto:
    """In place of `quantized`: the float graph, in which valence and arousal are the same for every face."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    [weight] = [item for item in wrong.graph.initializer if item.name == "network.affect.weight"]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros(weight.dims, np.float32), weight.name))
    return wrong


@pytest.mark.parametrize("expression", [False, True])
def test_int8_that_ruins_valence_and_arousal_is_not_written(expression, tmp_path, monkeypatch):
    tiny, rows = drawn_tiny(tmp_path, expression=expression, affect="trained")
    monkeypatch.setattr(targets, "quantized", without_affect)
    monkeypatch.setattr(targets, "_KEPT", 0)
    with pytest.raises(
        ExportError,
        match=r"the file's (valence|arousal) has a CCC of -?0\.0000 with the float model on 100 other faces of drawn \(allowed 0\.99",
    ):
        make(tiny, target("onnx-int8"), tmp_path, "m", rows)


def test_where_valence_moves_too_far_layers_stay_in_float(tmp_path, monkeypatch):
    tiny, rows = drawn_tiny(tmp_path, expression=False, affect="trained")
    monkeypatch.setattr(targets, "_CCC", 0.9999)
    made = make(tiny, target("onnx-int8"), tmp_path, "m", rows)
    assert made.kept
    assert (made.difference.flipped, "flipped" in str(made.difference)) == (None, False)
    assert min(made.difference.affect.ccc) > 0.99
    assert re.search(r"CCC with it 0\.99\d\d \(valence\) and 0\.99\d\d \(arousal\)", str(made.difference))


def test_affect_that_hardly_varies_agrees_by_its_distance():
    rng = np.random.default_rng(0)
    steady = 0.3 + 1e-4 * rng.normal(size=(200, 2))
    moved = agreement(steady, steady + 1e-3 * rng.normal(size=(200, 2)))
    assert max(moved.ccc) < 0.5
    assert moved.short(0.99) is None
    varied = rng.uniform(-1, 1, (200, 2))
    assert agreement(varied, varied + 0.01).short(0.99) is None
    name, ccc = agreement(varied, varied * [1, 0]).short(0.99)
    assert (name, round(ccc, 9)) == ("arousal", 0)
    assert agreement(np.full((9, 2), np.nan), np.full((9, 2), np.nan)) is None
    assert agreement(varied, np.full((200, 2), np.nan)).short(0.99) is not None


def test_ensembles_keep_every_members_stem_and_heads(tmp_path):
    export_ensemble([NANO, SMALL], [1, 1], tmp_path / "e.onnx")
    graph = folded(open_graph(tmp_path / "e.onnx")[0]).graph
    assert len(layers(graph)) == sum(len(layers(folded(open_graph(file)[0]).graph)) for file in (NANO, SMALL))
    assert sum(node.op_type == "Gemm" for node in graph.node if node.name in heads_and_stem(graph)) == 2


def test_tensorrt_gets_operators_and_an_opset_that_it_reads(mien):
    code, out, _ = mien("export", "ferplus-nano", "--to", "tensorrt", "--out", "n.onnx")
    assert code == 0
    assert "(not run here): trtexec --onnx=n.onnx --saveEngine=n.engine --fp16 --minShapes=chips:1x3x48x48" in out
    model = onnx.load("n.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {node.op_type for node in model.graph.node} <= OPERATORS


def test_a_batch_of_fixed_size_reads_any_number_of_faces(mien):
    code, out, err = mien("export", "ferplus-nano", "--to", "tensorrt", "--batch", 4, "--out", "four.onnx")
    assert code == 0, err
    assert "Shapes" not in out
    chips = np.random.default_rng(1).uniform(0, 255, (10, 3, 48, 48)).astype(np.float32)
    wanted = OnnxSession(NANO, 1).run(chips)
    for engine in ["onnx", *(["openvino"] if "openvino" in [e.name for e in _usable()] else [])]:
        for a, b in zip(open_session("four.onnx", 1, engine).run(chips), wanted, strict=True):
            assert np.allclose(a, b, atol=1e-3)


def _usable():
    from mien.runtime.engines import available

    return [engine for engine in available() if engine.devices]


def test_operators_that_tensorrt_lacks_are_named(tmp_path):
    model = onnx.load(make(SMALL, target("onnx"), tmp_path, "whole").files[0])
    last = model.graph.node[-1]
    last.input[1] = "stirred"
    model.graph.node.insert(0, onnx.helper.make_node("Hardmax", ["means"], ["stirred"]))
    onnx.save(model, str(tmp_path / "odd.onnx"))
    with pytest.raises(ExportError, match="TensorRT 8 does not know the operators Hardmax"):
        make(tmp_path / "odd.onnx", target("tensorrt"), tmp_path, "m")


def test_a_file_that_is_no_onnx_is_told(mien, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"junk" * 99)
    code, _, err = mien("export", "m.onnx", "--to", "onnx-fp16")
    assert (code, "m.onnx: not a readable ONNX file" in err, err.count("\n")) == (2, True, 1)


def test_an_opset_of_the_future_is_told(tmp_path):
    model = onnx.load(NANO)
    model.opset_import[0].version = 99
    onnx.save(model, str(tmp_path / "future.onnx"))
    with pytest.raises(ModelError, match="written in opset 99; the installed onnx knows up to"):
        make(tmp_path / "future.onnx", target("onnx"), tmp_path, "m")


def test_a_network_that_cannot_be_traced_is_told(mien, tmp_path, monkeypatch):
    run = a_run(tmp_path / "run")
    monkeypatch.setattr(ExportGraph, "_answer", lambda self, logits, affect: (torch.special.bessel_j0(logits), affect))  # noqa: ARG005
    code, _, err = mien("export", run, "--out", "m.onnx")
    assert code == 2
    assert "the network cannot be traced into opset 17" in err
    assert not list(tmp_path.glob("*m.*"))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("ferplus-nano", "--to", "onyx"), "--to: unknown target 'onyx'; did you mean 'onnx'?"),
        (
            ("ferplus-nano", "--to", "onnx-int8"),
            "--to onnx-int8: needs real faces to set ranges by; name a dataset with",
        ),
        (
            ("ferplus-nano", "--to", "openvino", "--out", "m.onnx"),
            "m.onnx: the first file of --to openvino ends in .xml",
        ),
        (("ferplus-nano", "--calibrate", "."), "--calibrate: is for int8 targets"),
        (("ferplus-nano", "--batch", 2), "--batch: is for tensorrt"),
        (("ferplus-nano", "--explain"), "--explain: needs a run"),
        (("ferplus-nono",), "no model of that name and no such file; did you mean 'ferplus-nano'?"),
    ],
)
def test_what_cannot_be_is_one_line(words, error, mien):
    code, _, err = mien("export", *words)
    assert (code, error in err) == (2, True), err


def test_too_few_faces_are_told(tmp_path, rows):
    with pytest.raises(ConfigError, match="drawn gives 100 faces, too few; 200 or more are needed"):
        make(NANO, target("onnx-int8"), tmp_path, "m", Rows("drawn", rows.ranges[:50], rows.held[:50]))
    with pytest.raises(ConfigError, match="99 faces are too few"):
        quantized(open_graph(NANO)[0], rows.ranges[:99])


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    made = make(NANO, target("onnx"), tmp_path / "work", "m")

    def full(source, place):  # noqa: ARG001
        Path(place).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(targets, "copyfile", full)
    with pytest.raises(OutputError, match="m.onnx: cannot be written .No space left"):
        publish(made, tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


@pytest.mark.parametrize(
    "write",
    [
        lambda run, out: export_onnx(run / "weights.safetensors", out, overwrite=True),
        lambda _, out: export_calibrated(NANO, out, 2.0, overwrite=True),
        lambda _, out: export_ensemble([NANO, SMALL], [1, 1], out, overwrite=True),
    ],
    ids=["export", "calibrate", "ensemble"],
)
def test_a_new_graph_never_stands_beside_an_old_spec(write, tmp_path, monkeypatch):
    run, folder = a_run(tmp_path / "run"), tmp_path / "models"
    folder.mkdir()
    for name in ("m.onnx", "m.json"):
        (folder / name).write_text("old")

    def full(path, data):  # noqa: ARG001
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space left"):
        patch.setattr(Path, "write_bytes", full)
        write(run, folder / "m.onnx")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"m.onnx": "old", "m.json": "old"}
    write(run, folder / "m.onnx")
    assert decode_spec((folder / "m.json").read_text(), "m.json") == read_spec(folder / "m.onnx")
    assert len(list(folder.iterdir())) == 2


def test_a_run_is_judged_before_and_after_and_the_figures_are_in_the_file(mien, tmp_path):
    run = a_run(tmp_path / "run")
    code, _, err = mien("data", "synthetic", "--out", "drawn.parquet", "--count", 60)
    assert code == 0, err
    words = ("export", run, "--to", "onnx-fp16", "--out", "m.onnx", "--data", "drawn.parquet")
    code, out, err = mien(*words)
    assert code == 0, err
    assert "accuracy on synthetic: 0." in out
    assert "before (" in out
    figures = ("accuracy", "macro_f1", "macro_recall", "ece")
    assert list(read_spec("m.onnx").metrics) == [f"synthetic/validation/{name}" for name in figures]
    card = (tmp_path / "m.md").read_text()
    assert "    mien evaluate m.onnx --data drawn.parquet --split validation --without-copies\n" in card
    assert "FER2013" not in card
    code, _, err = mien("evaluate", "m.onnx", "--data", "drawn.parquet", "--split", "validation", "--without-copies")
    assert code == 0, err
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    code, _, err = mien("export", run, "--to", "openvino", "--out", "o.xml", "--data", "drawn.parquet")
    assert code == 0, err
    assert "`o.xml` and `o.bin`, " in (tmp_path / "o.md").read_text()
