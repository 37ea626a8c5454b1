"""mien bench: what it measures, keeps and compares."""

import json

import msgspec
import pytest

from mien.errors import ConfigError
from mien.runtime import bench as benching
from mien.runtime.bench import Bench, Place, Speed, in_turns, places, read_bench, shipped
from mien.runtime.engines import Engine
from mien.runtime.fakes import FakeSession
from mien.runtime.machine import Machine, peak


def a_bench(ms: float = 2.0, **more) -> Bench:
    speeds = [
        Speed("m", "onnx", "cpu", "float32", threads, batch, ms * batch, ms, 9)
        for threads in (1, 0)
        for batch in (1, 8)
    ]
    here = Machine("a processor", 2, None, "a system", "3.12")
    return Bench(
        mien="0.1.0", machine=here, load=0.0, engines={"onnx": "1"}, bare=None, speeds=speeds, starts=[], stages=[],
        photo=None, missed=[], **more,
    )  # fmt: skip


def keep(path, found: Bench):
    path.write_bytes(msgspec.json.encode(found))
    return path


def test_this_machine_is_measured_kept_and_compared(mien, tmp_path):
    words = ("ferplus-nano", "--engine", "onnx", "--batch", "1,2", "--threads", "1", "--seconds", "0.01")
    code, out, err = mien("bench", *words, "--json", "a.json", "--markdown")
    assert code == 0, err
    found = read_bench(tmp_path / "a.json")
    assert [(one.model, one.engine, one.threads, one.batch) for one in found.speeds] == [
        ("ferplus-nano", "onnx", 1, 1),
        ("ferplus-nano", "onnx", 1, 2),
    ]
    assert all(
        one.ms > 0 and one.calls >= 5 and one.rate == pytest.approx(1000 * one.batch / one.ms) for one in found.speeds
    )
    [start] = found.starts
    assert start.size > 500_000
    assert start.first > 0
    assert start.opened > 0
    assert found.bare < start.memory < 2e9
    assert [stage.name for stage in found.stages] == ["decode", "detect", "crop", "read", "table"]
    assert found.photo == (512, 512, 1)
    assert "| ferplus-nano | onnx | float16 | 1 | " in out
    assert "| photographs a second | " in out
    code, out, _ = mien("bench", "a.json", "a.json")
    assert code == 0
    assert out.count("1.00") >= 2
    for word, value in (("--json", "b.json"), ("--engine", "onnx"), ("--photo", "a.jpg")):
        code, _, err = mien("bench", "a.json", "a.json", word, value)
        assert (code, word in err, "where measurements are compared" in err) == (2, True, True), err
    code, _, err = mien("bench", *words, "--json", "a.json")
    assert (code, "exists already" in err) == (2, True)


def test_comparing_pairs_lines_and_leaves_gaps(mien, tmp_path):
    keep(tmp_path / "slow.json", a_bench(2.0))
    fast = a_bench(1.0)
    keep(tmp_path / "fast.json", msgspec.structs.replace(fast, speeds=fast.speeds[:1]))
    code, out, _ = mien("bench", "slow.json", "fast.json", "--markdown")
    assert code == 0
    assert "| m | onnx | 1 | 1 | 2.00 | 1.00 | 2.00 |" in out
    assert "| m | onnx | 1 | 8 | 16.00 | - | - |" in out
    assert "times as fast as slow" in out
    (tmp_path / "other").mkdir()
    keep(tmp_path / "other" / "slow.json", fast)
    assert "| slow.json, ms | other/slow.json, ms |" in mien("bench", "slow.json", "other/slow.json", "--markdown")[1]


@pytest.mark.parametrize("threads", [(1,), (1, 0), (0, 2)])
def test_a_card_is_measured_once_whatever_the_threads(threads, monkeypatch):
    monkeypatch.setattr(benching, "_started", lambda _: benching._Said())
    monkeypatch.setattr(benching, "open_session", lambda *_: FakeSession())
    lines = [Place("m", "m.onnx", "onnx", device) for device in ("cpu", "cuda:0")]
    monkeypatch.setattr("pathlib.Path.is_file", lambda _: False)
    found = benching.bench(lines, (1,), threads, 0.0)
    counts = [(one.device, one.threads) for one in found.speeds]
    assert sorted(counts) == sorted([*(("cpu", count) for count in threads), ("cuda:0", 0)])


def test_a_time_that_is_no_number_is_refused_and_not_waited_for():
    with pytest.raises(ConfigError, match="--seconds: nan: give seconds for each line, from 0 on"):
        benching.bench([], seconds=float("nan"))


def test_an_engine_that_is_not_here_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(benching, "available", lambda: [Engine("tensorrt", "", (), "not installed: pip install x")])
    with pytest.raises(ConfigError, match="nothing here runs ferplus-nano; not installed: pip install x"):
        places(["ferplus-nano"], "tensorrt")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch", "1,x"], "--batch: expected whole numbers from 1, with commas, got '1,x'"),
        (["--threads", "0"], "--threads: expected whole numbers from 1"),
        (["ferplus-nan"], "did you mean 'ferplus-nano'?"),
        (["a.json"], "two or more .json files"),
        (["a.json", "ferplus-nano"], "two or more .json files"),
        (["none.json", "none.json"], "none.json: cannot be read"),
        (["--device", "cuda:7"], "nothing here runs ferplus-small"),
        (["--engine", "onxx"], "engine: unknown engine 'onxx'; did you mean 'onnx'?"),
        (["--device", "cudo"], "device: unknown device 'cudo'"),
        (["--seconds", "nan"], "--seconds"),
        (["--photo", "none.jpg"], "none.jpg"),
        (["--json", "none/a.json"], "no folder none; make it first"),
    ],
)
def test_what_it_refuses(mien, words, said):
    code, out, err = mien("bench", *words)
    assert (code, out) == (2, "")
    assert said in err


def test_files_of_something_else_and_of_a_newer_mien_are_refused(mien, tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps({"name": "ferplus-small"}))
    code, _, err = mien("bench", "spec.json", "spec.json")
    assert (code, "spec.json: no measurements of `mien bench --json`" in err) == (2, True)
    keep(tmp_path / "newer.json", a_bench(form=99))
    code, _, err = mien("bench", "newer.json", "newer.json")
    assert (code, "pip install -U mien" in err) == (2, True)


def test_a_file_that_does_not_open_is_told_and_the_rest_is_measured(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    good = places(["ferplus-nano"], "onnx")
    found = benching.bench([Place("broken.onnx", str(broken), "onnx", "cpu"), *good], (1,), (1,), 0.0)
    assert {one.model for one in found.speeds} == {"ferplus-nano"}
    assert [start.model for start in found.starts] == ["ferplus-nano"]
    assert all("broken.onnx" in what and "not a readable ONNX file" in what for what in found.missed)
    assert found.stages == []


def test_turns_give_each_call_its_time_and_no_more():
    count = {"a": 0, "b": 0}

    def call(name):
        count[name] += 1

    took = in_turns({name: lambda name=name: call(name) for name in count}, 0.0)
    assert count == {"a": 5, "b": 5}
    assert {name: len(times) for name, times in took.items()} == count


def test_the_shipped_models_and_the_peak_of_memory(tmp_path):
    assert {"ferplus-small", "ferplus-nano"} <= set(shipped())
    assert peak() is None or peak() > 1e7
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t   100 kB\n")
    assert peak(tmp_path / "status") == 102_400
