"""Recognising datasets: every look-alike by its form, and altered, foreign and mislabelled copies by their counts."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lookalikes as like
from mien.data.sources import SOURCES
from mien.data.sources.recognise import compare, counts_of, recognise
from mien.errors import DataError, DatasetNotFound

FER2013 = SOURCES["fer2013"].card.counts
RAFDB = SOURCES["rafdb"].card.counts


def altered(counts, **changes):
    """Counts with other numbers in places: train_fear=5567."""
    made = {split: dict(found) for split, found in counts.items()}
    for place, number in changes.items():
        split, name = place.split("_")
        made[split][name] = number
    return made


def empty_files(root, counts):
    """Class folders of empty files with these counts: recognising opens no picture."""
    for split, found in counts.items():
        for name, number in found.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                (folder / f"{i}.jpg").touch()


@pytest.mark.parametrize("form", like.FORMS)
def test_every_look_alike_is_recognised(form, tmp_path):
    source, write = like.FORMS[form]
    write(tmp_path)
    found = recognise(tmp_path)
    assert found.source == source
    assert found.form
    assert sum(sum(classes.values()) for classes in found.counts.values()) == sum(
        sample.target is not None for sample in found.manifest
    )


@pytest.mark.parametrize(
    ("form", "file", "source"),
    [
        ("fer2013.csv", "fer2013.csv", "fer2013"),
        ("competition", "train.csv", "fer2013"),
        ("fer2013 parquet", "training.parquet", "fer2013"),
        ("ferplus parquet", "training.parquet", "ferplus"),
        ("affectnet with header", "training.csv", "affectnet"),
        ("affectnet hq", "data/train-00000-of-00002.parquet", "affectnet-hq"),
        ("csv table", "faces.csv", "table"),
    ],
)
def test_one_file_is_recognised(form, file, source, tmp_path):
    like.FORMS[form][1](tmp_path)
    assert recognise(tmp_path / file).source == source


def test_nothing_known_is_an_error(tmp_path):
    with pytest.raises(DatasetNotFound, match="no such folder or file"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(DatasetNotFound, match="no dataset in a form that mien knows"):
        recognise(tmp_path)
    (tmp_path / "fer2013.csv").write_bytes(b"emotion,pixels,Usage\n9,1 2 3,Training\n")
    with pytest.raises(DataError, match="row 0"):
        recognise(tmp_path)


@pytest.mark.parametrize("name", [name for name, found in SOURCES.items() if found.card.counts])
def test_the_known_counts_raise_no_warning(name):
    assert compare(name, SOURCES[name].card.counts, name) == []


@pytest.mark.parametrize("source", ["fer2013", "folders", "huggingface"])
def test_an_altered_copy_names_the_class(source):
    counts = altered(FER2013, train_fear=5567)
    assert compare(source, counts, "fer2013") == ["an altered copy of fer2013: train fear 5,567 instead of 4,097"]


@pytest.mark.parametrize("source", ["fer2013", "folders"])
def test_a_foreign_split_is_named(source):
    counts = {
        "train": {"anger": 3993, "disgust": 436, "fear": 4103, "happiness": 7164, "neutral": 4982, "sadness": 4938, "surprise": 3205},
        "validation": {"anger": 960, "disgust": 111, "fear": 1018, "happiness": 1825, "neutral": 1216, "sadness": 1139, "surprise": 797},
    }  # fmt: skip
    (warning,) = compare(source, counts, "images")
    assert warning.startswith("a foreign split of fer2013, not comparable")
    assert "train 28,821, validation 7,066" in warning


def test_a_mislabelled_download_is_named():
    (warning,) = compare("folders", RAFDB, "FER+")
    assert warning == (
        "its class counts are not those of ferplus: they are those of rafdb (RAF-DB, basic expressions), a mislabelled download"
    )
    (warning,) = compare("sfew", {"train": RAFDB["train"], "validation": RAFDB["test"]}, "data")
    assert "they are those of rafdb" in warning


def test_plain_folders_that_hold_a_known_dataset_are_named():
    (warning,) = compare("folders", RAFDB, "download")
    assert warning.startswith("its class counts are those of rafdb")
    assert compare("folders", {"train": {"happiness": 300, "yawning": 200}}, "mine") == []
    assert compare("folders", {"train": {"happiness": 3}}, "mine") == []


def test_a_split_that_is_not_there_is_named():
    assert compare("fer2013", {"train": FER2013["train"]}) == [
        "fer2013: no rows in split validation (3,589 known)",
        "fer2013: no rows in split test (3,589 known)",
    ]


def test_a_ferplus_that_is_rafdb_is_found_out_on_disk(tmp_path):
    root = tmp_path / "ferplus"
    empty_files(root, RAFDB)
    found = recognise(root)
    assert found.source == "folders"
    assert found.counts == RAFDB
    assert any("those of rafdb" in warning for warning in found.warnings)


def test_an_altered_fer2013_is_found_out_on_disk(tmp_path):
    names = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    usages = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
    counts = altered(FER2013, train_fear=5567)
    rows = [(usages[split], names.index(name)) for split in usages for name, n in counts[split].items() for _ in range(n)]  # fmt: skip
    columns = {
        "image": [{"bytes": b"never decoded", "path": None}] * len(rows),
        "usage": [usage for usage, _ in rows],
        "emotion": [code for _, code in rows],
    }
    pq.write_table(pa.table(columns), tmp_path / "all.parquet")
    assert recognise(tmp_path).warnings == ("an altered copy of fer2013: train fear 5,567 instead of 4,097",)


def test_another_split_on_disk_carries_its_warning(tmp_path):
    like.jonathanoheix(tmp_path)
    found = recognise(tmp_path)
    assert found.form == "class folders, another split"
    assert "not comparable" in found.warnings[0]


def test_counts_are_of_labelled_rows(tmp_path):
    like.csv_table(tmp_path)
    assert counts_of(SOURCES["table"].read(tmp_path, "")) == {
        "train": {"happiness": 1},
        "validation": {"yawning": 1},
        "test": {"neutral": 1},
    }


def test_the_real_fer2013_is_recognised(test_data):
    found = recognise(test_data / "fer2013")
    assert (found.source, found.form, found.warnings) == ("ferplus", "Parquet with votes", ())
    manifest = SOURCES["fer2013"].read(test_data / "fer2013", "")
    assert compare("fer2013", counts_of(manifest)) == ["fer2013: no rows in split test (3,589 known)"]
