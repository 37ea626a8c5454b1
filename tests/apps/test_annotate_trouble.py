"""Annotating where something is wrong: names that no file has, buckets without their package, jobs that are given up."""

import hashlib
import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import mien as library
from apps.test_annotate import FILES, QUICK, a_job, encoded, here, paths_file, pictures, rows_in  # noqa: F401 - a fixture
from mien.apps.annotate import block, worker
from mien.apps.annotate.block import Source, _row
from mien.apps.annotate.job import FOLDER, locked, part_place
from mien.apps.annotate.local import run_local
from mien.apps.annotate.places import Place, open_place
from mien.apps.annotate.plan import Asked, Block, Line, check_input
from mien.apps.annotate.run import _hash
from mien.apps.annotate.worker import Child, Worker
from mien.errors import DataError, OutputError


@pytest.mark.usefixtures("here")
def test_names_that_no_file_has_cost_their_rows(tmp_path, mien):
    pictures(tmp_path, 1)
    names = ["000.png", "a\0b.png", "a\0b.mp4", "http://[x/y.png"]
    paths_file(tmp_path / "x.parquet", names)
    assert mien("annotate", "x.parquet", "--out", "out", *QUICK)[0] == 1
    rows = sorted(
        ds.dataset(tmp_path / "out").to_table(columns=["row", "error"]).to_pylist(), key=lambda row: row["row"]
    )
    assert rows[0]["error"] is None
    assert [row["error"] for row in rows[1:3]] == ["cannot be read (no file is called so)"] * 2
    assert rows[3]["error"]


@pytest.mark.skipif(os.name == "nt", reason="no colons in names on this system")
@pytest.mark.usefixtures("here")
def test_a_name_with_two_colons_is_a_file_and_an_archive_an_archive(tmp_path, mien):
    pictures(tmp_path / "in::side", 2)
    (tmp_path / "in::side" / "001.png").rename(tmp_path / "in::side" / "a::b.png")
    (tmp_path / "in::side" / "a").write_bytes(b"another file")
    for what in ("in::side", "in::side/a::*.png", "in::side/a::b.png"):
        assert mien("annotate", what, "--out", "new::out", "--overwrite", *QUICK)[0] == 0
        assert rows_in(tmp_path / "new::out")[-1]["image"].endswith("/in::side/a::b.png")
    place = open_place(f"file://{tmp_path}/in::side/a::b.png")
    assert (place.local, place.path) == (True, str(tmp_path / "in::side" / "a::b.png"))
    with zipfile.ZipFile("b.zip", "w") as archive:
        archive.writestr("a.png", b"inside")
    assert open_place("zip://a.png::b.zip").read() == b"inside"
    (tmp_path / "zip::b.zip").write_bytes(b"beside")
    assert open_place("zip::b.zip").read() == b"beside"


def packed(path, names):
    """A .zip or .tar that holds these names: pictures by their ending, else text."""
    files = {name: encoded(at) if name.endswith(".png") else b"text" for at, name in enumerate(names)}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            archive.addfile(facts, io.BytesIO(data))


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("what", ["in/a.{}", "in/*.{}", "{}://x/*.png::in/a.{}"])
@pytest.mark.usefixtures("here")
def test_what_an_archive_holds_is_annotated_where_it_is_named(kind, what, tmp_path, mien):
    (tmp_path / "in").mkdir()
    packed(tmp_path / "in" / f"a.{kind}", ["x/0.png", "x/0.txt", "x/1.png", "x/._0.png"])
    command = ("annotate", what.format(kind, kind), "--out", "out", *QUICK)
    assert mien(*command)[0] == 0
    rows = rows_in(tmp_path / "out")
    assert [row["image"] for row in rows] == [f"{kind}://x/{at}.png::{tmp_path}/in/a.{kind}" for at in (0, 1)]
    alone = library.load("ferplus-nano", "whole", 1)
    assert [row["label"] for row in rows] == [[alone(encoded(at))[0].expression.label] for at in (0, 2)]
    assert "1 of 1 parts were there already" in mien(*command)[1]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_has_what_is_below_a_point_and_is_listed_in_one_go(kind, tmp_path, monkeypatch):
    names = ["./b.png", "./x/a::b.png", "./x/._a.png", "xy/c.png"]
    path = tmp_path / (f"a.{kind}" if os.name == "nt" else f"a::b.{kind}")
    packed(path, names)
    inside = open_place(path).inside()
    monkeypatch.setattr(type(inside.fs), "ls", None)
    found = {file.path: file for file, _ in inside.files()}
    assert list(found) == ["./b.png", "./x/a::b.png", "xy/c.png"]
    assert open_place(found["./x/a::b.png"].stored()).read() == encoded(1)
    with zipfile.ZipFile(tmp_path / "around.zip", "w") as archive:
        archive.write(path, f"a.{kind}")
    assert open_place(f"{kind}://./b.png::zip://a.{kind}::{tmp_path}/around.zip").read() == encoded(0)
    for asked, held in (("*.png", [0]), ("./x", [1]), ("**/*.png", [0, 1, 3])):
        assert [file.path for file, _ in inside.at(asked).files()] == [names[at] for at in held]


def test_a_link_in_an_archive_that_leads_nowhere_is_a_file_that_cannot_be_read(tmp_path):
    link = tarfile.TarInfo("1.png")
    link.type, link.linkname = tarfile.SYMTYPE, "no.png"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(link)
    with pytest.raises(OSError, match="its archive does not give it: linkname"):
        open_place(f"tar://1.png::{tmp_path}/a.tar").read()


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_is_opened_once_and_anew_when_it_was_written_anew(kind, tmp_path):
    packed(tmp_path / f"a.{kind}", ["0.png", "1.png"])
    places = [open_place(f"{kind}://{at}.png::{tmp_path}/a.{kind}") for at in (0, 1)]
    assert places[0].fs is places[1].fs
    with ThreadPoolExecutor(8) as pool:  # members of one archive are read by many threads
        assert list(pool.map(Place.read, places * 50)) == [encoded(0), encoded(1)] * 50
    packed(tmp_path / f"a.{kind}", ["other.png", "1.png", "0.png"])
    assert open_place(f"{kind}://0.png::{tmp_path}/a.{kind}").read() == encoded(2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.csv", "to_parquet"),
        ("a.tgz", "unpack it first"),
        ("b.zip", "b.zip: cannot be opened as .zip"),
        ("*.zip", "leave it out with a pattern"),
        ("tar://*.png::no.tar", "no.tar: there is no such archive; check"),
        ("in", '"FOLDER/*.tar"'),
        ("in/**.png", "within a name write *"),
    ],
)
def test_what_is_no_input_is_told_before_a_job_begins(name, words, tmp_path, mien):
    (tmp_path / "in").mkdir()
    packed(tmp_path / "in" / "a.tar", ["0.png"])
    for bad in ("a.csv", "a.tgz", "b.zip"):
        (tmp_path / bad).write_bytes(b"path\n0.png\n")
    code, _, out = mien("annotate", name, "--out", "out", *QUICK)
    assert (code, words in out, (tmp_path / "out").exists()) == (2, True, False)


def test_no_archive_is_written_into(tmp_path, mien):
    packed(tmp_path / "a.zip", ["0.png"])
    code, _, out = mien("annotate", "a.zip", "--out", "zip://out::a.zip", *QUICK)
    assert (code, "archives are only read" in out) == (2, True)


@pytest.mark.parametrize(("glob", "names"), [("*.png", ["a.png"]), (".*.png", ["._a.png"]), ("**/*", ["a.png"])])
def test_a_glob_leaves_hidden_files_out_unless_it_asks(tmp_path, glob, names):
    for name in ("a.png", "._a.png"):
        (tmp_path / name).touch()
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "b.png").touch()
    assert [Path(place.path).name for place, _ in open_place(tmp_path / glob).files()] == names


@pytest.mark.usefixtures("here")
def test_an_input_whose_name_is_no_utf8_is_annotated_and_gone_on_with(odd_name, tmp_path, mien):
    pictures(tmp_path / odd_name, 2)
    words = ("annotate", odd_name, "--out", f"{odd_name}-out", *QUICK)
    code, out, _ = mien(*words)
    assert (code, "2 inputs, 2 frames" in out, "written: caf\\udce9-out" in out) == (0, True, True)
    assert "1 of 1 parts were there already" in mien(*words)[1]
    code, _, err = mien(*words, "--overwrite", "--root", odd_name)
    assert (code, "--root" in err, "its name is not UTF-8" in err) == (2, True, True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
@pytest.mark.usefixtures("here")
def test_a_pipe_is_not_waited_for(tmp_path, mien):
    pictures(tmp_path / "in", 1)
    for name in ("pipe.png", "pipe.mp4"):
        os.mkfifo(tmp_path / "in" / name)
    assert mien("annotate", "in", "--out", "out", *QUICK)[0] == 1
    errors = ds.dataset(tmp_path / "out").to_table().column("error").to_pylist()
    assert sorted(error or "" for error in errors) == ["", *["cannot be read (a pipe or a device, not a file)"] * 2]


@pytest.mark.parametrize(
    ("path", "video"),
    [("https://a/f.mp4?key=1.png", True), ("https://a/f.png?key=1.mp4", False), ("odd?.mp4", True), ("f.jpg", False)],
)
def test_signed_addresses_are_known_by_their_path(path, video):
    assert (
        _row(open_place("/a/x.parquet"), pa.record_batch({"path": [path]}), 0, Source(column="path")).row.video is video
    )


def test_addresses_that_nothing_here_opens_stop_the_work(tmp_path):
    a_job(paths_file(tmp_path / "x.parquet", ["s4://a/1.png", "s4://a/2.png"]), tmp_path / "out")
    with pytest.raises(DataError, match="addresses begin with s3://.*nor any other of its block's 2 inputs"):
        Worker(tmp_path / "out", FILES).do(0)
    assert not part_place(open_place(tmp_path / "out"), 0).exists()
    pictures(tmp_path, 1)
    a_job(paths_file(tmp_path / "y.parquet", ["000.png", "s4://a/2.png"]), tmp_path / "other")
    assert Worker(tmp_path / "other", FILES).do(0).failed == 1


def test_where_nothing_was_begun_nothing_stays(tmp_path, mien):
    (tmp_path / "in").mkdir()
    assert mien("annotate", "in", "--out", "out", *QUICK)[0] == 2
    (tmp_path / "mine").mkdir()
    assert mien("annotate", "in", "--out", "mine", *QUICK)[0] == 2
    # a Parquet file that turns out to be damaged after others were listed
    pq.write_table(pa.table({"path": ["a"] * 1500}), tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / "b.parquet").write_bytes(b"PAR1")
    assert mien("annotate", "in", "--out", "out", "--block", 1, *QUICK)[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "mine"]
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize("sign", [b"", b"[]", b"{}", b'{"time": 1}'])
def test_a_sign_of_life_that_is_damaged_or_old_keeps_nobody_out(sign):
    out = open_place("memory://signed")
    (out / FOLDER / "alive.json").write(sign)
    with locked(out):
        assert b'"id"' in (out / FOLDER / "alive.json").read()
    assert not (out / FOLDER / "alive.json").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer_is_told_at_once(address, tmp_path, mien):
    pytest.importorskip("ray")
    pictures(tmp_path / "in", 1)
    code, _, err = mien("annotate", "in", "--out", "out", *QUICK, "--runner", "ray", "--address", address)
    assert (code, f"--address: no Ray cluster answers at {address}" in err) == (2, True), err


def test_a_child_that_was_closed_starts_no_other_process(tmp_path, capfd):
    child = Child(str(tmp_path), FILES)
    child.close()
    with pytest.raises(OutputError, match="block 0: given up"):
        child.do(0)
    assert child.process is None
    assert capfd.readouterr().err == ""


FAR = {
    "moment": pa.array([253402300800 * 10**6, 0, None], pa.timestamp("us", tz="Europe/Berlin")),
    "days": pa.array([10**7, 0, None], pa.date32()),
    "fine": pa.array([1234567890123456789, 0, None], pa.timestamp("ns")),
    "clock": pa.array([1234567, 0, None], pa.time64("ns")),
    "words": pa.array(["b", "a", None]).dictionary_encode(),
    "pairs": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "label": pa.array([10**7, 0, None], pa.date32()),
}


@pytest.mark.parametrize("kind", ["string_view", "large_string", "dictionary"])
def test_paths_are_read_in_whatever_form_a_tool_wrote_them(kind, tmp_path):
    pictures(tmp_path, 1)
    paths = pa.array(["000.png", "000.png"])
    paths = paths.dictionary_encode() if kind == "dictionary" else paths.cast(getattr(pa, kind)())
    assert planned(tmp_path, pa.table({"path": paths})) == ["000.png", "000.png"]


@pytest.mark.parametrize("kind", [pa.binary_view(), pa.binary(4), pa.dictionary(pa.int32(), pa.binary())])
def test_images_are_read_in_whatever_form_a_tool_wrote_them(kind, tmp_path):
    images = pa.array([b"abcd"])
    images = images.dictionary_encode() if pa.types.is_dictionary(kind) else images.cast(kind)
    assert planned(tmp_path, pa.table({"image": images})) == [b"abcd"]


def planned(folder, table) -> list[bytes | str]:
    """What the inputs of a Parquet file are: bytes, or the path that a row is called by."""
    pq.write_table(table, folder / "x.parquet")
    check_input(Asked(input=str(folder / "x.parquet")), open_place(folder / "out"))
    line = Line("rows", os.fsencode(folder / "x.parquet"), 0, len(table))
    found = list(block._inputs(Block(0, (line,)), Source(column=table.column_names[0])))
    return [one.content if isinstance(one.content, bytes) else one.row.image for one in found]


def test_two_columns_of_one_name_are_told(tmp_path):
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["path", "path"])
    with pytest.raises(DataError, match="two columns are called 'path'"):
        planned(tmp_path, table)
    pq.write_table(pa.table([pa.array(["a"])] * 3, names=["path", "x", "x"]), tmp_path / "x.parquet")
    check_input(Asked(input=str(tmp_path / "x.parquet")), open_place(tmp_path / "out"))


def test_columns_that_python_has_no_values_for_are_kept_as_they_were(tmp_path):
    table = pa.table({"image": [encoded(i) for i in range(3)], "id": FAR["days"], **FAR})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    a_job(tmp_path / "x.parquet", tmp_path / "out", keep=tuple(FAR))
    assert Worker(tmp_path / "out", FILES).do(0).failed == 0
    found = ds.dataset(tmp_path / "out").to_table()
    for name, column in FAR.items():
        kept = found.column("input_label" if name == "label" else name).combine_chunks()
        assert kept.type == column.type
        assert kept.to_pylist() == column.to_pylist() if name == "words" else kept.equals(column)
    assert found.column("image")[1].as_py() == "1970-01-01"


def test_a_row_that_cannot_be_read_keeps_nothing(tmp_path):
    pq.write_table(pa.table({"image": [encoded(0)] * 4, "days": [1, 2, 3, 4]}), tmp_path / "x.parquet")
    a_job(tmp_path / "x.parquet", tmp_path / "out", keep=("days",))
    pq.write_table(pa.table({"image": [encoded(0)] * 2, "days": [1, 2]}), tmp_path / "x.parquet")
    assert Worker(tmp_path / "out", FILES).do(0).failed == 2
    assert ds.dataset(tmp_path / "out").to_table().column("days").to_pylist() == [1, 2, None, None]


def serve_oddly(*about):
    """A child to which one picture does what nobody foresaw."""
    fill = block._fill

    def odd(row, *more):
        if row.image.endswith("001.png"):
            raise IndexError("odd")
        fill(row, *more)

    block._fill = odd
    worker._serve(*about)


def test_an_input_that_raises_what_nobody_foresaw_costs_one_row(tmp_path, monkeypatch):
    a_job(pictures(tmp_path / "in", 3), tmp_path / "out")
    monkeypatch.setattr(worker, "_serve", serve_oddly)
    child = Child(str(tmp_path / "out"), FILES)
    try:
        assert child.do(0).failed == 1
    finally:
        child.close()
    errors = ds.dataset(tmp_path / "out").to_table().column("error").to_pylist()
    assert errors == [None, "the process that read it died twice (IndexError: odd)", None]


def serve_without_writing(*about):
    """A child that fails, as nobody foresaw, when every input is read."""

    def odd(*_):
        raise OverflowError("date value out of range")

    Worker._encoded = odd
    worker._serve(*about)


def test_what_is_no_inputs_fault_is_told_and_not_blamed_on_memory(tmp_path, monkeypatch, capfd):
    a_job(pictures(tmp_path / "in", 1), tmp_path / "out")
    monkeypatch.setattr(worker, "_serve", serve_without_writing)
    child = Child(str(tmp_path / "out"), FILES)
    try:
        with pytest.raises(OutputError, match="block 0: OverflowError: date value out of range; .*report it"):
            child.do(0)
    finally:
        child.close()
    assert capfd.readouterr().err == ""


def test_what_a_worker_s_thread_raises_ends_the_job(tmp_path, monkeypatch):
    def odd(*_):
        raise ValueError("odd")

    monkeypatch.setattr(Child, "do", odd)
    with pytest.raises(ValueError, match="odd"):
        list(run_local(str(tmp_path), range(3), FILES, 1))


@pytest.mark.parametrize(("first", "beside"), [("m.xml", "m.bin"), ("m.engine", "m.json"), ("m.plan", "m.json")])
def test_a_model_of_two_files_is_known_by_both(first, beside, tmp_path):
    (tmp_path / first).write_bytes(b"graph")
    (tmp_path / beside).write_bytes(b"weights")
    before = _hash(str(tmp_path / first))
    (tmp_path / beside).write_bytes(b"others!")
    assert _hash(str(tmp_path / first)) != before
    (tmp_path / "m.onnx").write_bytes(b"graph")
    assert _hash(str(tmp_path / "m.onnx")) == hashlib.sha256(b"graph").hexdigest()
    assert _hash(None) == _hash(str(tmp_path / "none.onnx")) == ""


@pytest.mark.parametrize("size", ["0", "nan", "inf"])
def test_a_job_for_faces_of_no_size_is_not_begun(size, tmp_path, mien):
    pictures(tmp_path / "in", 1)
    code, _, err = mien("annotate", "in", "--out", "out", "--model", "ferplus-nano", "--min-size", size)
    assert (code, "min-size" in err.replace("_", "-")) == (2, True)
    assert not (tmp_path / "out").exists()


def test_what_lies_below_the_output_is_left_out_on_windows(tmp_path, monkeypatch):
    """os.walk joins with a backslash there, fsspec with a slash."""
    place = open_place(tmp_path)
    monkeypatch.setattr(
        os, "walk", lambda *_, **__: [(f"{place.path}\\out", [], ["a.parquet"]), (place.path, [], ["b.png"])]
    )
    monkeypatch.setattr(os.path, "join", lambda *parts: "\\".join(parts))
    monkeypatch.setattr(os, "sep", "\\")
    assert [file.path for file, _ in place.files(f"{place.path}/out")] == [f"{place.path}/b.png"]
