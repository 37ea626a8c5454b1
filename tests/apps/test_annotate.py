"""Annotating much: one row an input, failures as rows; what is killed goes on; one job a folder."""

import os
import signal
import subprocess
import sys
import time

import cv2
import fsspec
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import mien as library
from builders import a_video, drawn_face
from mien.apps.annotate import local
from mien.apps.annotate.columns import FACE_LISTS, OWN, face_rows
from mien.apps.annotate.job import FOLDER, How, locked, part_place, start
from mien.apps.annotate.places import open_place
from mien.apps.annotate.plan import Asked, read_block
from mien.apps.annotate.run import annotate
from mien.apps.annotate.worker import Child, Files, Worker
from mien.errors import DataError, OutputError
from mien.faces import face_record
from mien.runtime.store import model_file
from mien.runtime.table import table_columns
from mien.vision.image import read_image
from runtime.test_sinks import a_disk_of

QUICK = ("--model", "ferplus-nano", "--detector", "whole")
FILES = Files(str(model_file("ferplus-nano")), None)


def encoded(seed: int) -> bytes:
    return cv2.imencode(".png", drawn_face(64, mouth=(seed % 7 - 3) / 3, seed=seed)[..., ::-1])[1].tobytes()


def pictures(folder, count: int):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:03d}.png").write_bytes(encoded(number))
    return folder


def rows_in(folder) -> list[dict]:
    """Every row, in the order of the images' names."""
    return sorted(ds.dataset(folder).to_table().to_pylist(), key=lambda row: (row["image"], row["row"] or 0))


def a_job(what, out, **asked):
    """A job whose blocks a Worker of this process can do."""
    how = How(model="ferplus-nano", model_hash="", detector="whole", detector_hash="")
    labels = library.load("ferplus-nano", "whole", 1).classifier.spec.labels
    return start(open_place(out), Asked(input=str(what), **asked), how, labels, "test")


@pytest.fixture
def here(monkeypatch):
    """Blocks are done in this process: starting another takes a second."""

    class Here:
        def __init__(self, out, files, seen):
            self._about, self._seen, self._worker = (out, files), seen, None

        def do(self, number):
            self._worker = self._worker or Worker(*self._about)
            return self._worker.do(number, lambda i: self._seen(number, i))

        def close(self):
            pass

    monkeypatch.setattr(local, "Child", Here)


def paths_file(path, places):
    pq.write_table(pa.table({"path": [str(place) for place in places]}), path)
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder with pictures in folders, a video, what is damaged and what is no input; and its annotation."""
    root = tmp_path_factory.mktemp("mixed")
    pictures(root / "in" / "deep" / "er", 3)
    (root / "in" / "bad.jpg").write_bytes(b"no picture")
    (root / "in" / "cut.png").write_bytes(encoded(9)[:900])
    (root / "in" / "notes.txt").write_text("not an input")
    (root / "in" / ".hidden.png").write_bytes(encoded(1))
    a_video(root / "in" / "film.mp4", count=60)
    (root / "in" / "broken.mp4").write_bytes((root / "in" / "film.mp4").read_bytes()[:600])
    found = annotate(root / "in", root / "out", workers=1, model="ferplus-nano", detector="whole", rate=5.0, block=4)
    return root, found


def test_every_input_has_one_row(mixed):
    root, found = mixed
    rows = rows_in(root / "out")
    names = ["bad.jpg", "broken.mp4", "cut.png", "deep/er/000.png", "deep/er/001.png", "deep/er/002.png", "film.mp4"]
    assert [row["image"] for row in rows] == [str(root / "in" / name) for name in names]
    assert [bool(row["error"]) for row in rows] == [True, True, True, False, False, False, False]
    assert "is not an image of a known form" in rows[0]["error"]
    assert "cut off or damaged" in rows[2]["error"]
    assert str(root) not in "".join(row["error"] or "" for row in rows), "the place is in `image`"
    assert all(rows[0][name] is None for name in FACE_LISTS)
    assert (found.inputs, found.failed, found.blocks, found.before) == (7, 3, 2, 0)
    assert found.faces == sum(row["faces"] for row in rows)
    assert 0 < found.seconds < 60


def test_a_face_means_what_it_means_elsewhere(mixed):
    root, _ = mixed
    row = rows_in(root / "out")[3]
    image = read_image(row["image"])
    [face] = map(face_record, library.load("ferplus-nano", "whole", 1)(image))
    assert (row["height"], row["width"], row["frames"], row["faces"], row["video"]) == (*image.shape[:2], 1, 1, False)
    assert row["box"] == [list(face.box)]
    assert row["label"] == [face.expression.label]
    assert np.allclose(row["probabilities"][0], list(face.expression.probabilities.values()), atol=1e-7)
    assert np.allclose([row["valence"][0], row["arousal"][0]], [face.expression.valence, face.expression.arousal])


def test_a_video_is_one_row_of_sampled_frames(mixed):
    root, _ = mixed
    row = rows_in(root / "out")[-1]
    assert row["video"]
    assert row["frame_index"] == list(range(0, 60, 5))
    assert np.allclose(row["frame_seconds"], np.arange(12) / 5)
    assert row["index"] == row["frame_index"], "one face a frame"
    assert row["track"][0] == 1


def test_faces_unroll_to_the_table_of_a_video(mixed):
    root, _ = mixed
    rows = list(face_rows(root / "out"))
    labels = library.load("ferplus-nano", "whole", 1).classifier.spec.labels
    assert list(rows[0]) == [column.name for column in table_columns(labels)]
    film = [row for row in rows if row["image"].endswith("film.mp4")]
    assert [row["seconds"] for row in film] == [round(i / 5, 4) for i in range(12)]
    want = face_record(library.load("ferplus-nano", "whole", 1)(root / "in" / "deep" / "er" / "001.png")[0])
    row = next(row for row in rows if row["image"].endswith("001.png"))
    assert (row["x0"], row["x1"], row["label"]) == (want.box[0], want.box[2], want.expression.label)
    assert row["confidence"] == want.expression.confidence
    assert row["model"] == "ferplus-nano"


def test_every_column_says_what_it_means(mixed):
    root, _ = mixed
    schema = ds.dataset(root / "out").schema
    assert schema.names == [*(column.name for column in OWN), *FACE_LISTS]
    assert all(schema.field(name).metadata[b"meaning"] for name in schema.names)
    facts = msgspec.json.decode(schema.metadata[b"mien"])
    assert facts["annotation_version"] == 1
    assert len(facts["labels"]) == 8


@pytest.fixture
def table(tmp_path):
    """Parquet with images, paths beside it, and what goes wrong; row groups of three."""
    pictures(tmp_path / "beside", 1)
    images = [{"bytes": encoded(i), "path": None} for i in range(7)]
    images[2] = {"bytes": None, "path": "beside/000.png"}
    images[4] = {"bytes": None, "path": "beside/none.png"}
    images[5] = None
    columns = {
        "id": [f"fer:{i}" for i in range(7)],
        "image": images,
        "label": [f"l{i}" for i in range(7)],
        "age": range(7),
    }
    pq.write_table(pa.table(columns), tmp_path / "faces.parquet", row_group_size=3)
    return tmp_path / "faces.parquet"


@pytest.mark.usefixtures("here")
def test_rows_of_parquet_are_inputs(table, tmp_path, mien):
    words = (
        "annotate",
        table,
        "--out",
        "out",
        *QUICK,
        "--keep",
        "age",
        "--keep",
        "label",
        "--block",
        2,
        "--workers",
        1,
    )
    code, out, err = mien(*words)
    assert code == 1, err
    assert (
        "2 of 7 inputs could not be read (to their end), such as fer:4: cannot be read (there is no such file)" in err
    )
    assert "written: out" in out
    rows = rows_in(tmp_path / "out")
    assert [(row["image"], row["row"], row["age"]) for row in rows] == [(f"fer:{i}", i, i) for i in range(7)]
    assert [row["input_label"] for row in rows] == [f"l{i}" for i in range(7)]
    assert rows[4]["error"] == "cannot be read (there is no such file)"
    assert rows[5]["error"] == "the row holds no image and no path"
    assert all(row["error"] is None and row["faces"] == 1 for row in rows if row["row"] not in (4, 5))
    code, out, _ = mien(*words)
    assert code == 1
    assert "parts were there already" in out


@pytest.mark.usefixtures("here")
def test_columns_called_as_ours_are_kept_beside_ours(tmp_path):
    columns = {"image": [encoded(0)], "part": ["a"], "model": ["theirs"], "x0": [7.0], "P_happiness": ["much"]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    keep = ("part", "model", "x0", "P_happiness")
    annotate(tmp_path / "x.parquet", tmp_path / "out", workers=1, model="ferplus-nano", detector="whole", keep=keep)
    assert pq.read_table(tmp_path / "out").num_rows == 1
    [row] = face_rows(tmp_path / "out")
    assert [row[f"input_{name}"] for name in keep] == ["a", "theirs", 7.0, "much"]
    assert (row["model"], row["x0"]) == ("ferplus-nano", 0.0)


@pytest.mark.usefixtures("here")
def test_a_damaged_parquet_block_costs_its_rows(table, tmp_path):
    data = bytearray(table.read_bytes())
    chunk = pq.read_metadata(table).row_group(1).column(1)
    start_at, size = chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size
    data[start_at : start_at + size] = bytes(size)
    table.write_bytes(data)
    annotate(table, tmp_path / "out", workers=1, model="ferplus-nano", detector="whole", block=3)
    rows = sorted(rows_in(tmp_path / "out"), key=lambda row: row["row"])
    assert [row["row"] for row in rows] == list(range(7))
    assert all("its Parquet block is damaged" in row["error"] for row in rows[3:6])
    assert [row["error"] for row in (*rows[:3], rows[6])] == [None] * 4


@pytest.mark.parametrize(
    ("make", "words", "says"),
    [
        (lambda at: (at / "x.parquet").write_bytes(b"PAR1 no"), ("x.parquet",), "cannot be read as Parquet"),
        (lambda at: pq.write_table(pa.table({"a": [1]}), at / "x.parquet"), ("x.parquet",), "no column of images or paths among a"),
        (lambda at: pq.write_table(pa.table({"path": ["a"]}), at / "x.parquet"), ("x.parquet", "--keep", "b"), "no column 'b' to keep"),
        (lambda at: pq.write_table(pa.table({"path": ["a"]}), at / "x.parquet"), ("x.parquet", "--column", "b"), "no column 'b'"),
        (lambda at: pq.write_table(pa.table({"path": pa.array([], "string")}), at / "x.parquet"), ("x.parquet",), "have no rows"),
        (lambda at: (at / "in").mkdir(), ("in",), "nothing to annotate: no file lies there"),
        (lambda at: (at / "a.txt").write_text("a"), (".",), "none of its 1 files is a picture"),
        (lambda _: None, ("none.jpg",), "there is no such file"),
        (lambda _: None, ("none*.jpg",), "nothing to annotate"),
        (lambda _: None, ("memory://none",), "there is no such file"),
        (lambda _: None, ("s4://none",), "addresses begin with s3://"),
        (lambda at: pictures(at / "in", 1), ("in", "--column", "image"), "--column, --keep, --root: are for Parquet"),
        (lambda at: pictures(at / "in", 1), ("in", "--root", "elsewhere"), "--column, --keep, --root: are for Parquet"),
        (lambda at: pq.write_table(pa.table({"path": ["a"], "label": ["b"], "input_label": ["c"]}), at / "x.parquet"), ("x.parquet", "--keep", "label", "--keep", "input_label"), "two columns would be called 'input_label'"),
        (lambda at: pq.write_table(pa.table({"path": ["a"], "b": ["b"]}), at / "x.parquet"), ("x.parquet", "--keep", "b", "--keep", "b"), "two columns would be called 'b'"),
        (lambda at: pictures(at / "in", 1), ("in", "--address", "auto"), "add --runner ray"),
        (lambda at: (pictures(at / "in", 1), paths_file(at / "in" / "x.parquet", ["a"])), ("in",), "holds Parquet files and others"),
    ],
)  # fmt: skip
def test_what_cannot_be_annotated_is_said_in_one_line(make, words, says, tmp_path, mien):
    make(tmp_path)
    code, _, err = mien("annotate", *words, "--out", tmp_path.parent / f"{tmp_path.name}-out", *QUICK)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["pyarrow", "fsspec", "filelock"])
def test_what_is_not_installed_is_named(name):
    code = f"import sys; sys.modules[{name!r}] = None; sys.argv = ['mien', 'annotate', 'a', '--out', 'b']"
    words = [sys.executable, "-c", f"{code}; from mien.cli import main; main()"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        f"mien: error: Annotating needs {name}. Install it with: pip install 'mien[data]'\n",
    )


def test_a_bucket_is_read_and_written(tmp_path):
    """The memory file system of fsspec lives in one process, so a worker of this process does the blocks."""
    bucket = fsspec.filesystem("memory")
    for number in range(5):
        bucket.pipe_file(f"/photos/{number % 2}/{number}.png", encoded(number))
    pictures(tmp_path / "in", 5)
    bucket.pipe_file("/photos/film.mp4", _film(tmp_path).read_bytes())
    try:
        with locked(open_place("memory://out")):
            job = a_job("memory://photos", "memory://out", block=2)
            with (
                pytest.raises(OutputError, match="another annotation is at work there.*if it was killed, wait 90 s"),
                locked(open_place("memory://out")),
            ):
                pass
            worker = Worker("memory://out", FILES)
            parts = [worker.do(number) for number in range(job.blocks)]
        read = [
            pq.read_table(bucket.open(str(part_place(open_place("memory://out"), n).path))) for n in range(job.blocks)
        ]
        rows = sorted(pa.concat_tables(read).to_pylist(), key=lambda row: row["image"])
    finally:
        bucket.rm("/", recursive=True)
    assert [row["image"] for row in rows] == [
        *(f"memory:///photos/{n}.png" for n in ("0/0", "0/2", "0/4", "1/1", "1/3")), "memory:///photos/film.mp4"]  # fmt: skip
    assert sum(part.inputs for part in parts) == 6
    assert not any(row["error"] for row in rows)
    [face] = map(face_record, library.load("ferplus-nano", "whole", 1)(encoded(3)))
    assert rows[4]["label"] == [face.expression.label]


def _film(tmp_path):
    a_video(tmp_path / "film.mp4", count=5)
    return tmp_path / "film.mp4"


class Refusing(MemoryFileSystem):
    """A bucket that lists what it then refuses to give."""

    protocol = "refusing"
    listing = True

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("refusing://", "memory://"))

    def info(self, path, **kwargs):
        if not Refusing.listing:
            raise PermissionError(13, "Access Denied")
        return super().info(path, **kwargs)

    def cat_file(self, *_, **__):
        raise PermissionError(13, "Access Denied")


def test_an_unreadable_bucket_stops_the_work(tmp_path):
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    fsspec.filesystem("memory").pipe_file("/b/1.png", encoded(1))
    try:
        Refusing.listing = False
        with pytest.raises(DataError, match=r"refusing:///?b: cannot be read \(Access Denied\)"):
            a_job("refusing://b", tmp_path / "out")
        Refusing.listing = True
        a_job("refusing://b", tmp_path / "out")
        with pytest.raises(DataError, match="Access Denied.*nor any other.*give the same command again"):
            Worker(tmp_path / "out", FILES).do(0)
    finally:
        fsspec.filesystem("memory").rm("/b", recursive=True)
    assert not part_place(open_place(tmp_path / "out"), 0).exists()


def _parts(out) -> set[str]:
    return {path.name for path in out.glob("part=*/0*.parquet")}


@pytest.mark.usefixtures("here")
def test_what_was_killed_goes_on_and_gives_the_same_rows(tmp_path, mien):
    pictures(tmp_path / "in", 60)
    words = ["annotate", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *QUICK, "--block", "4", "--workers", "1"]
    with subprocess.Popen([sys.executable, "-m", "mien", *words], stderr=subprocess.PIPE) as killed:
        while len(_parts(tmp_path / "out")) < 2:
            assert killed.poll() is None, killed.stderr.read()
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part=*/0*.parquet")}
    assert 2 <= len(kept) < 15
    code, out, err = mien(*words)
    assert code == 0, err
    assert "of 15 parts were there already" in out
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items()), "finished parts are not made again"
    annotate(tmp_path / "in", tmp_path / "whole", model="ferplus-nano", detector="whole", block=7, workers=1)
    assert rows_in(tmp_path / "out") == rows_in(tmp_path / "whole")
    assert len(rows_in(tmp_path / "out")) == 60


def test_an_input_that_kills_costs_one_row(tmp_path):
    """A pipe without a writer stands for the input: reading it waits until the test kills the process."""
    pictures(tmp_path / "in", 3)
    os.mkfifo(tmp_path / "in" / "pipe.png")
    names = ["000.png", "001.png", "pipe.png", "002.png"]
    a_job(paths_file(tmp_path / "x.parquet", [tmp_path / "in" / name for name in names]), tmp_path / "out")
    killed = []

    def kill(_block, number):
        if number == 2:
            killed.append(child.process)
            os.kill(child.process, signal.SIGKILL)

    child = Child(str(tmp_path / "out"), FILES, kill)
    try:
        done = child.do(0)
    finally:
        child.close()
    assert len(set(killed)) == 2
    assert (done.inputs, done.failed, done.faces) == (4, 1, 3)
    errors = {row["image"][-8:]: row["error"] for row in rows_in(tmp_path / "out")}
    assert errors["pipe.png"] == "the process that read it died twice (SIGKILL)"


@pytest.mark.usefixtures("here")
def test_one_job_a_folder(tmp_path, mien):
    pictures(tmp_path / "in", 2)
    words = ("annotate", "in", "--out", "out", *QUICK)
    with locked(open_place(tmp_path / "out")):
        code, _, err = mien(*words)
    assert code == 2
    assert f"another annotation is at work there (process {os.getpid()} on" in err
    assert mien(*words)[0] == 0
    for more, says in [
        (("--per-second", 2), "--per-second 1.0, now 2.0"),
        (("--model", "ferplus-small"), "--model ferplus-nano, now ferplus-small"),
        (("--block", 3), "--block 1024, now 3"),
    ]:
        code, _, err = mien(*words, *more)
        assert code == 2
        assert f"was begun with other settings: {says}; give those of before" in err
    (tmp_path / "in" / "more.png").write_bytes(encoded(5))
    code, _, err = mien("annotate", "imn", "--out", "out", *QUICK, "--overwrite")
    assert (code, "imn" in err) == (2, True)
    assert len(rows_in(tmp_path / "out")) == 2  # a mistyped input costs nothing
    assert mien(*words, "--block", 3, "--overwrite")[0] == 0
    assert len(rows_in(tmp_path / "out")) == 3


def test_a_folder_with_other_files_is_left_alone(tmp_path, mien):
    pictures(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years")
    for words, says in ((("--overwrite",), "holds other files (thesis.txt)"), ((), "holds other files")):
        code, _, err = mien("annotate", "in", "--out", "out", *QUICK, *words)
        assert (code, says in err) == (2, True)
    assert (tmp_path / "out" / "thesis.txt").exists()
    code, _, err = mien("annotate", "in", "--out", "out/thesis.txt", *QUICK)
    assert (code, "is a file; give the name of a folder" in err) == (2, True)


@pytest.mark.usefixtures("here")
def test_a_full_disk_keeps_finished_parts(tmp_path, mien):
    pictures(tmp_path / "in", 2)
    words = ("annotate", "in", "--out", "out", *QUICK, "--block", 1, "--workers", 1)
    with a_disk_of(4_000):
        code, _, err = mien(*words)
    assert code == 2
    assert "0000000.parquet: cannot be written (File too large)" in err
    assert not list((tmp_path / "out").rglob("*.part*"))
    assert mien(*words)[0] == 0
    assert len(rows_in(tmp_path / "out")) == 2


@pytest.mark.usefixtures("here")
def test_damaged_parts_and_failures_are_done_again(tmp_path, mien):
    pictures(tmp_path / "in", 3)
    (tmp_path / "in" / "late.png").write_bytes(b"")
    words = ("annotate", "in", "--out", "out", *QUICK, "--block", 2, "--workers", 1)
    assert mien(*words)[0] == 1
    first = tmp_path / "out" / "part=0000" / "0000000.parquet"
    whole = rows_in(tmp_path / "out")
    first.write_bytes(first.read_bytes()[:-20])
    code, out, err = mien(*words)
    assert "0000000.parquet: is damaged, or not of this job; it is made again" in err
    assert "1 of 2 parts were there already" in out
    assert rows_in(tmp_path / "out") == whole
    (tmp_path / "in" / "late.png").write_bytes(encoded(8))
    code, out, _ = mien(*words, "--retry")
    assert (code, "1 of 2 parts were there already" in out) == (0, True)
    assert [row["error"] for row in rows_in(tmp_path / "out")] == [None] * 4


def test_a_plan_is_kept_in_files_of_a_thousand_blocks(tmp_path):
    pq.write_table(pa.table({"path": [f"{i}.png" for i in range(2503)]}), tmp_path / "x.parquet", row_group_size=500)
    job = a_job(tmp_path / "x.parquet", tmp_path / "out", block=2)
    names = sorted(path.name for path in (tmp_path / "out" / FOLDER).iterdir())
    assert (job.inputs, job.blocks, names) == (2503, 1251, ["job.json", "plan-000000.arrow", "plan-000001.arrow"])
    starts = [read_block(open_place(tmp_path / "out" / FOLDER), n).lines[0] for n in (0, 1000, 1250)]
    assert [line.start for line in starts] == [0, 2000, 2500]


@pytest.mark.usefixtures("here")
def test_pictures_of_other_kinds_are_told(tmp_path, mien):
    pictures(tmp_path / "in" / "below", 1)
    for name in ("a.heic", "below/b.HEIC", "c.avif", "._d.heic", "notes.txt"):
        (tmp_path / "in" / name).write_bytes(b"?")
    told = "3 pictures of other kinds were left out (.heic 2, .avif 1); save them as JPEG or PNG"
    code, _, err = mien("annotate", "in", "--out", "out", *QUICK)
    assert (code, f"mien: {told}\n" in err) == (0, True)
    (tmp_path / "in" / "below" / "000.png").unlink()
    code, _, err = mien("annotate", "in", "--out", "other", *QUICK)
    assert (
        code,
        f"nothing to annotate: none of its 4 files is a picture, a video or Parquet by its ending; {told}" in err,
    ) == (2, True)
