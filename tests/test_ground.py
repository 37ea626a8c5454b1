"""The ground floor: errors, labels, faces, specs, recipes, files."""

import errno
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from builders import a_face, an_expression
from mien import errors
from mien.alone import alone
from mien.errors import ConfigError, ModelError, OutputError
from mien.faces import FaceRecord, face_record
from mien.files import check_free, quoted, whole_file, whole_files
from mien.labels import CODES, LabelSet, affect_means, label_set
from mien.recipe import Recipe, load_recipe, recipe_names, recipe_text
from mien.spec import CropSpec, ModelSpec, decode_spec, encode, strict


def test_every_error_is_a_mien_error():
    kinds = [getattr(errors, name) for name in errors.__all__ if name != "near_miss"]
    assert all(issubclass(kind, errors.MienError) for kind in kinds)


def test_known_codes_name_known_labels():
    known = set(label_set("affectnet8")) | {"other", None}
    assert all(set(names) <= known for names in CODES.values())


def test_projection_drops_and_renormalises():
    eight, seven = label_set("affectnet8"), label_set("affectnet7")
    moved = eight.project(np.array([[0.5, 0, 0, 0, 0, 0, 0, 0.5], [0, 0, 0, 0, 0, 0, 0, 1.0]]), seven)
    assert moved[0, 0] == 1.0
    assert np.isnan(moved[1]).all()


@pytest.mark.parametrize("shape", [(2, 3), (2, 1), (2,), (1, 2, 2)])
def test_probabilities_of_other_labels_are_not_projected(shape):
    with pytest.raises(ConfigError, match=r"labels: probabilities of shape .* for 2 labels; expected \(n, 2\)"):
        LabelSet(("a", "b")).project(np.ones(shape), LabelSet(("b", "c")))


def test_names_of_labels_are_texts():
    with pytest.raises(ConfigError, match=r"labels: names must be texts, got \[1, 2\]"):
        LabelSet((1, 2))
    with pytest.raises(ConfigError, match="labels: unknown label 1; choose from: a, b"):
        LabelSet(("a", "b")).index(1)


def test_an_unknown_label_has_no_affect():
    assert np.isnan(affect_means(LabelSet(("neutral", "pain")))[1]).all()
    with pytest.raises(ConfigError, match="labels: expected several names, got the text 'sad'"):
        LabelSet("sad")


def test_a_face_has_one_json_form():
    face = a_face(landmarks=np.ones((5, 2), np.float32), expression=an_expression(valence=math.nan))
    text = msgspec.json.encode(face_record(face))
    back = msgspec.json.decode(text, type=FaceRecord)
    assert back.expression.label == "happiness"
    assert back.expression.valence is None
    assert list(back.expression.probabilities) == list(face.expression.labels)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.lrr=1", "optimizer.lrr: unknown key; did you mean 'lr'?"),
        ("optimizer.lr=fast", "optimizer.lr: expected `float`, got `str`"),
        ("optimizer.name=adamx", "optimizer.name: unknown value 'adamx'; did you mean 'adam'?"),
        ("data.labels=affectnet9", "data.labels: unknown label set 'affectnet9'; did you mean 'affectnet8'?"),
        ("crop.width=4", "crop.width: expected between 8 and 1024 pixels, got 4"),
        ("nonsense", "nonsense: expected section.key=value"),
    ],
)
def test_a_wrong_recipe_says_where(setting, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe("ferplus-small", [setting])
    assert str(caught.value) == message


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'ferplus-small'"):
        load_recipe("ferplus-smal")


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_survive_writing(name, tmp_path):
    recipe = load_recipe(name)
    (tmp_path / "r.yaml").write_text(recipe_text(recipe))
    assert load_recipe(tmp_path / "r.yaml") == recipe


def test_exponents_are_numbers_and_repeated_keys_are_errors(tmp_path):
    assert load_recipe("ferplus-small", ["optimizer.lr=3e-4"]).optimizer.lr == 3e-4
    (tmp_path / "r.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(ConfigError, match="name: given twice"):
        load_recipe(tmp_path / "r.yaml")


def test_five_points_are_needed():
    with pytest.raises(ConfigError, match="crop.align: 'five' needs points"):
        strict({"width": 48, "height": 48, "align": "five"}, CropSpec, "crop")


def test_specs_survive_and_newer_ones_are_refused():
    spec = ModelSpec(name="a", labels=("x", "y"), crop=CropSpec(width=48, height=48))
    assert decode_spec(encode(spec), "f") == spec
    with pytest.raises(ModelError, match="this mien reads up to 1"):
        decode_spec(encode(spec).replace(b'"format": 1', b'"format": 99'), "f")
    with pytest.raises(ModelError, match="not JSON"):
        decode_spec("{", "f")


def test_files_appear_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a.txt") as part:
        part.write_text("half")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    with whole_file(tmp_path / "a.txt") as part:
        part.write_text("whole")
    with pytest.raises(OutputError, match="exists already"), whole_file(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("name", ["\u3042" * 80 + ".jpg", "a" * 251 + ".csv"])
def test_a_file_may_have_as_long_a_name_as_the_disk_allows(tmp_path, name):
    with whole_file(tmp_path / name) as part, alone(tmp_path / name, "busy"):
        part.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_files_that_belong_together_get_their_names_together(tmp_path):
    names = [tmp_path / "a.bin", tmp_path / "a.txt"]
    with whole_files(names) as parts:
        for part in parts:
            part.write_text("old")
    with pytest.raises(OutputError, match="a.bin: cannot be written .No space left"), whole_files(names, True) as parts:
        parts[0].write_text("new")
        raise OSError(28, "No space left on device")
    with pytest.raises(OutputError, match="a.bin: exists already"), whole_files([tmp_path / "b", *names]):
        pass
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.bin": "old", "a.txt": "old"}


def test_of_files_that_belong_together_the_described_one_is_last(tmp_path, monkeypatch):
    renamed = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda part, to: (renamed.append(to.name), replace(part, to)))
    with whole_files([tmp_path / "a.bin", tmp_path / "a.txt"]) as parts:
        for part in parts:
            part.touch()
    assert renamed == ["a.txt", "a.bin"]


def test_a_full_disk_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="No space left"), whole_file(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")


@pytest.fixture
def opened(monkeypatch):
    """Pretend to be Windows, where other programs have these files open: each is tried so often before it is free."""
    tries: dict[str, int] = {}
    replace, open_ = Path.replace, Path.open

    def held(path):
        tries[path.name] = tries.get(path.name, 0) - 1
        if tries[path.name] >= 0:
            raise PermissionError(13, "Access is denied", str(path))

    monkeypatch.setattr("mien.files.sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr("mien.files._MOMENT", 0.1)
    monkeypatch.setattr(Path, "replace", lambda part, to: (held(to), replace(part, to))[1])
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: (a == ("r+b",) and held(path), open_(path, *a, **k))[1])
    return tries


def test_a_file_that_a_virus_scanner_looks_at_is_replaced_a_moment_later(tmp_path, opened):
    opened["a.csv"] = 2
    with whole_file(tmp_path / "a.csv") as part:
        part.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_file_that_another_program_keeps_is_told_early_and_what_was_made_stays(tmp_path, opened):
    (tmp_path / "a.csv").touch()
    opened["a.csv"] = 1000
    with pytest.raises(OutputError, match=r"a\.csv: cannot be replaced: another program has it open.*close it there"):
        check_free(tmp_path / "a.csv", overwrite=True)
    with pytest.raises(OutputError, match=r"a\.csv: cannot be replaced: .* what was made lies in (.*)") as told:
        with whole_file(tmp_path / "a.csv", overwrite=True) as part:
            part.write_text("new")
    assert Path(str(told.value).rpartition("lies in ")[2]).read_text() == "new"


def test_a_part_that_is_still_open_does_not_hide_what_went_wrong(tmp_path, monkeypatch):
    def kept(*_, **__):
        raise PermissionError(13, "being used by another process")

    monkeypatch.setattr(Path, "unlink", kept)
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a.txt"):
        1 / 0  # noqa: B018


def test_on_windows_a_lock_asks_for_no_number_of_the_file(tmp_path, monkeypatch):
    """Some Pythons give an open file and its name two numbers there: it would be opened for ever."""
    locking = SimpleNamespace(locking=lambda *_: None, LK_NBLCK=2)
    monkeypatch.setattr("mien.alone.msvcrt", locking, raising=False)
    monkeypatch.setattr("mien.alone.sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr("os.path.samestat", lambda *_: pytest.fail("asked"))
    with alone(tmp_path / "a.csv", "busy"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_is_a_value():
    assert load_recipe("ferplus-small") == load_recipe("ferplus-small")
    assert isinstance(load_recipe("ferplus-small"), Recipe)


def test_one_at_a_time_in_a_folder_or_a_file(tmp_path):
    for place in (tmp_path, tmp_path / "t.csv"):
        with alone(place, "here", "go"):
            with pytest.raises(OutputError, match=r"^here \(process \d+ on .*\); wait for it, or go$"):
                with alone(place, "here", "go"):
                    pass
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match=r"t\.csv: cannot be written \(No such file"):
        with alone(tmp_path / "none" / "t.csv", "here"):
            pass
    (tmp_path / ".t.csv.lock").touch()  # of one that was killed
    with alone(tmp_path / "t.csv", "here"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="flock is of POSIX")
def test_a_file_system_without_locks_lets_everyone_in(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    with alone(tmp_path, "here"), alone(tmp_path, "here"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="an open file stays there")
def test_a_lock_file_that_was_removed_meanwhile_is_made_anew(tmp_path, monkeypatch):
    import fcntl

    plain, removed = fcntl.flock, []

    def flock(file, how):
        if not removed:
            removed.append((tmp_path / ".lock").unlink())
        plain(file, how)

    monkeypatch.setattr("fcntl.flock", flock)
    with alone(tmp_path, "here"):
        with pytest.raises(OutputError, match="here"):
            with alone(tmp_path, "here"):
                pass


@pytest.mark.parametrize(
    ("platform", "word", "typed"),
    [
        ("linux", "f/**/*.png", "'f/**/*.png'"),
        ("win32", r"f\**\*.png", r'"f\**\*.png"'),
        ("win32", r"C:\a\b.png", r"C:\a\b.png"),
        ("win32", "", '""'),
    ],
)
def test_a_word_is_quoted_as_the_shells_of_a_system_know_it(platform, word, typed, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    assert quoted(word) == typed
