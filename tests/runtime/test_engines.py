"""Which engine runs a model, and that each answers as ONNX Runtime does."""

import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest

import mien as library
from builders import drawn_face
from mien.errors import ConfigError, MissingExtra, ModelError, ModelNotFound
from mien.runtime import engines
from mien.runtime.choice import Choice
from mien.runtime.engines import available, choose, detector_device
from mien.runtime.fakes import FakeSession
from mien.runtime.sessions import FullSession, OnnxSession, open_session, read_spec
from mien.runtime.store import model_file
from test_runtime import a_model

NANO = model_file("ferplus-nano")


def some_chips(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, 3, 48, 48)).astype(np.float32)


@pytest.fixture
def openvino() -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.fixture
def _card(monkeypatch):
    """A machine with an NVIDIA card and ONNX Runtime's GPU wheel, as far as can be asked without them."""
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)
    monkeypatch.setattr(engines, "_card", lambda: True)


def test_every_engine_is_listed_with_its_version_or_what_is_missing():
    found = {engine.name: engine for engine in available()}
    assert list(found) == [name for name in engines.ENGINES if name != "auto"]
    assert found["onnx"].version == ort.__version__
    assert found["onnx"].devices[0] == "cpu"
    for engine in found.values():
        assert bool(engine.devices) != bool(engine.why), engine


def test_without_wishes_it_is_onnx_runtime_on_the_cpu_and_says_why():
    choice = choose()
    assert (choice.engine, choice.device) == ("onnx", "cpu")
    assert str(choice).startswith("onnx on cpu: it reads every .onnx model")


@pytest.mark.usefixtures("_card")
@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({}, ("onnx", "cuda")),
        ({"engine": "onnx"}, ("onnx", "cuda")),
        ({"device": "cpu"}, ("onnx", "cpu")),
        ({"device": "cuda:1"}, ("onnx", "cuda:1")),
        ({"engine": "tensorrt"}, ("tensorrt", "cuda")),
    ],
)
def test_with_a_card_it_is_taken_unless_the_cpu_is_asked_for(asked, got):
    choice = choose(**asked)
    assert (choice.engine, choice.device) == got
    assert detector_device(choice) == got[1]


@pytest.mark.usefixtures("_card")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_card_that_does_not_start_is_left_for_the_cpu_unless_it_was_asked_for():
    session = open_session(NANO, 1)
    assert str(session.choice).startswith("onnx on cpu: cuda does not start (")
    assert session.choice.fallen
    with pytest.raises(ModelError, match="does not start on cuda; CUDA, cuDNN .* --device cpu works"):
        open_session(NANO, 1, device="cuda")


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"engine": "onyx"}, ConfigError, "engine: unknown engine 'onyx'; did you mean 'onnx'?"),
        ({"device": "cpus"}, ConfigError, "device: unknown device 'cpus'; did you mean 'cpu'?"),
        ({"device": "cuda:x"}, ConfigError, "unknown device 'cuda:x'"),
        ({"engine": "onnx", "device": "npu"}, ConfigError, r"device npu: is no device of the engine onnx \(cpu, cuda"),
        ({"engine": "onnx", "file": "m.xml"}, ConfigError, "engine onnx: does not read .xml files; openvino does"),
        ({"device": "cuda"}, MissingExtra, r"CUDA provider. Install it with: pip install 'mien\[gpu\]'"),
        ({"engine": "tensorrt"}, MissingExtra, r"TensorRT provider. Install it with: pip install 'mien\[gpu\]'"),
        ({"file": "m.engine"}, MissingExtra, "A TensorRT .engine file needs TensorRT. Install it with: pip install"),
    ],
)
def test_what_cannot_be_is_refused_with_the_next_move(asked, error, words):
    with pytest.raises(error, match=words):
        choose(**asked)


def test_an_engine_that_is_not_installed_is_one_line(mien, monkeypatch, tmp_path):
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    (tmp_path / "face.png").write_bytes(b"")
    code, _, err = mien("predict", "face.png", "--engine", "openvino")
    assert code == 2
    assert err.strip().endswith("Install it with: pip install 'mien[openvino]'")


def test_the_page_takes_only_what_browsers_run(tmp_path):
    from mien.apps.page import page_files

    with pytest.raises(ConfigError, match=r"m.xml: the page's engine reads .onnx models alone"):
        page_files(tmp_path / "m.xml", None)


def test_a_session_of_ones_own_takes_no_engine():
    with pytest.raises(ConfigError, match="a session has chosen its own"):
        library.load(FakeSession(), engine="onnx")


@pytest.mark.usefixtures("openvino")
def test_openvino_answers_as_onnx_runtime():
    ours, theirs = OnnxSession(NANO, 1), open_session(NANO, 1, "openvino")
    assert str(theirs.choice) == "openvino on cpu: asked for"
    assert theirs.spec == ours.spec
    assert isinstance(theirs, FullSession)
    for count in (1, 5):
        for a, b in zip(ours.run(some_chips(count)), theirs.run(some_chips(count)), strict=True):
            assert np.allclose(a, b, atol=1e-5)
    assert len(theirs.run_all(some_chips(2))) == 2


@pytest.mark.usefixtures("openvino")
def test_openvino_reads_photographs_on_the_command_line(mien, tmp_path):
    from mien.vision.image import write_image

    write_image(tmp_path / "face.png", drawn_face())
    told = [
        mien("predict", "face.png", "--detector", "whole", "--json", *how)[1] for how in ((), ("--engine", "openvino"))
    ]
    assert '"label"' in told[0]
    assert told[0][:200] == told[1][:200]


@pytest.mark.usefixtures("openvino")
def test_openvino_says_what_is_wrong_with_a_file(tmp_path):
    (tmp_path / "bad.onnx").write_text("no graph")
    with pytest.raises(ModelError, match="bad.onnx: OpenVINO cannot read it"):
        open_session(tmp_path / "bad.onnx", 1, "openvino")
    (tmp_path / "alone.xml").write_text("<net/>")
    with pytest.raises(ModelNotFound, match="alone.bin: is missing; OpenVINO's form is two files"):
        open_session(tmp_path / "alone.xml")
    with pytest.raises(ModelNotFound, match="none.xml: no such model file"):
        library.load(tmp_path / "none.xml")
    import onnx

    model = onnx.load(a_model(tmp_path / "m.onnx"))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "plain.onnx"))
    for engine in ("onnx", "openvino"):
        with pytest.raises(ModelError, match="plain.onnx: a model file, but no mien model"):
            open_session(tmp_path / "plain.onnx", 1, engine)
    with pytest.raises(ModelError, match=r"does not start on OpenVINO's gpu.*--device cpu does"):
        open_session(NANO, 1, device="gpu.7")
    with pytest.raises(ModelError, match="fails on 2 chips"):
        open_session(NANO, 1, "openvino").run(np.zeros((2, 3, 4, 4), np.float32))


@pytest.mark.usefixtures("openvino")
def test_openvino_reports_nothing_to_its_makers():
    code = "import sys; from mien.runtime.openvino import load_openvino; load_openvino(); print([n for n in sys.modules if n.startswith('openvino_telemetry')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class _Memory:
    """CUDA's runtime as far as a session uses it: memory that is addressed, copied and freed."""

    cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815

    def __init__(self):
        self.places: dict[int, bytearray] = {}
        self.cards: dict[int, int] = {}
        self._next = 16

    def cudaSetDevice(self, number):  # noqa: N802
        self.cards[threading.get_ident()] = number
        return (0,)

    def cudaMalloc(self, size):  # noqa: N802
        self._next += 16
        self.places[self._next] = bytearray(size)
        return 0, self._next

    def cudaFree(self, place):  # noqa: N802
        del self.places[place]
        return (0,)

    def cudaMemcpy(self, target, source, size, kind):  # noqa: N802
        import ctypes

        if kind == 1:
            self.places[target][:] = ctypes.string_at(source, size)
        else:
            ctypes.memmove(target, bytes(self.places[source]), size)
        return (0,)

    def cudaDeviceSynchronize(self):  # noqa: N802
        return (0,)


class _Context:
    def __init__(self, memory, session, most):
        self.memory, self.session, self.most = memory, session, most
        self.shape, self.places = None, {}

    def set_input_shape(self, name, shape):
        assert name == "chips"
        assert shape[0] <= self.most
        self.shape = shape

    def get_tensor_shape(self, name):
        return (self.shape[0], {"probabilities": 8, "affect": 2}[name])

    def set_tensor_address(self, name, place):
        self.places[name] = place

    def execute_async_v3(self, stream):  # noqa: ARG002
        chips = np.frombuffer(self.memory.places[self.places["chips"]], np.float32).reshape(self.shape)
        for name, array in zip(("probabilities", "affect"), self.session.run(chips), strict=True):
            self.memory.places[self.places[name]][:] = np.ascontiguousarray(array, np.float32).tobytes()
        return True


@pytest.fixture
def tensorrt(monkeypatch):
    """A stand-in for TensorRT and CUDA that answers as ferplus-nano; a batch of 4 at most. Its memory."""
    memory = _Memory()

    class Engine:
        num_io_tensors = 3
        first = -1

        def get_tensor_name(self, number):
            return ("chips", "probabilities", "affect")[number]

        def get_tensor_shape(self, name):
            return {"chips": (self.first, 3, 48, 48), "probabilities": (-1, 8), "affect": (-1, 2)}[name]

        def get_tensor_profile_shape(self, name, profile):  # noqa: ARG002
            return (1, 3, 48, 48), (4, 3, 48, 48), (4, 3, 48, 48)

        def create_execution_context(self):
            return _Context(memory, OnnxSession(NANO, 1), 4)

    def deserialize(data):
        if data == b"old":
            return None
        engine = Engine()
        engine.first = 4 if data == b"fixed" else -1
        return engine

    trt = types.ModuleType("tensorrt")
    trt.__version__, trt.__spec__ = "10.0", types.SimpleNamespace()
    trt.Logger = lambda level: level
    trt.Logger.ERROR = 1
    trt.Runtime = lambda _: types.SimpleNamespace(deserialize_cuda_engine=deserialize)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", memory)
    return memory


@pytest.mark.parametrize("kind", [b"any", b"fixed"])
def test_a_tensorrt_engine_is_fed_in_parts_and_leaves_no_memory_taken(kind, tensorrt, tmp_path):
    place = tmp_path / "nano.engine"
    place.write_bytes(kind)
    with pytest.raises(ModelNotFound, match="no nano.json beside it"):
        open_session(place)
    place.with_suffix(".json").write_bytes(NANO.with_suffix(".json").read_bytes())
    session = open_session(place)
    assert session.choice == Choice("tensorrt", "cuda", "it alone reads .engine files")
    assert read_spec(place).name == "ferplus-nano"
    for a, b in zip(session.run(some_chips(10)), OnnxSession(NANO, 1).run(some_chips(10)), strict=True):
        assert np.allclose(a, b, atol=1e-6)
    assert tensorrt.places == {}


def test_every_thread_that_runs_a_tensorrt_engine_chooses_its_card(tensorrt, tmp_path):
    place = tmp_path / "nano.engine"
    place.write_bytes(b"any")
    place.with_suffix(".json").write_bytes(NANO.with_suffix(".json").read_bytes())
    session = open_session(place, device="cuda:1")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(threading.get_ident).result()
        pool.submit(session.run, some_chips(2)).result()
    assert tensorrt.cards == {threading.get_ident(): 1, other: 1}


@pytest.mark.usefixtures("tensorrt")
def test_a_tensorrt_engine_of_another_machine_is_told(tmp_path):
    place = tmp_path / "nano.plan"
    place.write_bytes(b"old")
    place.with_suffix(".json").write_bytes(NANO.with_suffix(".json").read_bytes())
    with pytest.raises(ModelError, match="no engine for this card and TensorRT 10.0; engines run only where"):
        open_session(place)
