"""Every dataset form, read from a look-alike; every bad input, refused with file and row; FER2013's forms agree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lookalikes as like
from mien.data.sources import SOURCES, read_source
from mien.data.sources.card import Card
from mien.data.sources.ferplus import all_votes
from mien.errors import DataError, DatasetNotFound
from mien.labels import KNOWN_SETS
from mien.vision.image import read_image


def rows_of(manifest):
    """(split, label or None) of every row."""
    return [(s.split, None if s.target is None else manifest.header.labels[int(s.target.argmax())]) for s in manifest]


@pytest.mark.parametrize("form", like.FORMS)
def test_every_form_reads_as_it_was_written(form, tmp_path):
    source, write = like.FORMS[form]
    expected = write(tmp_path)
    manifest = read_source(source, tmp_path)
    assert manifest.header.source == source
    assert len(manifest)
    if expected is not None:
        assert rows_of(manifest) == expected
    for sample in manifest:
        assert read_image(sample.image).ndim == 3
        assert sample.target is None or (sample.target.sum() == 1 and sample.target.max() == 1)


@pytest.mark.parametrize("name", SOURCES)
def test_every_card_is_whole(name):
    card: Card = SOURCES[name].card
    assert card.name == name
    assert card.title
    assert card.layout
    assert card.obtain
    assert set(card.splits.values()) <= {"train", "validation", "test"}
    assert set(card.labels) <= {*KNOWN_SETS["affectnet8"], "other"}
    assert [n for n in KNOWN_SETS["affectnet8"] if n in card.labels] == [n for n in card.labels if n != "other"] or (
        name == "ckplus"
    )
    for counts in card.counts.values():
        assert set(counts) == set(card.labels)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("fer2013", {"train": 28709, "validation": 3589, "test": 3589}),
        ("ferplus", {"train": 25060, "validation": 3199}),
        ("affectnet", {"train": 287651, "validation": 4000}),
        ("affectnet2021", {"train": 287651, "validation": 3999}),
        ("rafdb", {"train": 12271, "test": 3068}),
        ("ckplus", {"train": 981}),
        ("expw", {"train": 91793}),
        ("sfew", {"train": 958, "validation": 436}),
    ],
)
def test_known_counts_add_up(name, sizes):
    assert {split: sum(counts.values()) for split, counts in SOURCES[name].card.counts.items()} == sizes


def test_affectnet_gives_boxes_landmarks_and_affect(tmp_path):
    like.affectnet(tmp_path)
    manifest = read_source("affectnet", tmp_path)
    first = next(iter(manifest))
    assert first.id == "affectnet:0/training0.jpg"
    assert first.box == (2, 3, 22, 27)
    assert first.landmarks.shape == (68, 2)
    assert first.landmarks[1].tolist() == [1.5, 2]
    affect = manifest.affect()
    assert np.isnan(affect[7]).all()
    assert np.allclose(affect[3], (0.3, -0.3))
    assert manifest.header.left_out == {"none of the eight expressions": 1, "uncertain": 1, "no face": 1}


def test_affectnet_reads_one_list_of_the_two(tmp_path):
    like.affectnet(tmp_path)
    assert len(read_source("affectnet", tmp_path / "validation.csv")) == 8


def test_affectnet_2021_reads_numbers_from_strings(tmp_path):
    like.affectnet2021(tmp_path)
    manifest = read_source("affectnet2021", tmp_path)
    samples = list(manifest)
    assert [s.id for s in samples[:12]] == [f"affectnet2021:train_set/{i}" for i in range(12)]
    assert samples[11].landmarks[0].tolist() == [0.25, 1.25]
    assert samples[10].valence == pytest.approx(0.5)
    assert samples[10].arousal == pytest.approx(-0.5)
    assert np.isnan(samples[7].valence)
    assert not np.isnan(samples[7].arousal)


def test_kaggle_affectnet_counts_where_folder_and_list_disagree(tmp_path):
    like.affectnet_kaggle(tmp_path)
    assert read_source("affectnet-kaggle", tmp_path).header.warnings[0].startswith("2 rows where folder and labels.csv")


def test_ckplus_knows_its_subjects(tmp_path):
    like.ckplus(tmp_path)
    subjects = [s.subject for s in read_source("ckplus", tmp_path)]
    assert subjects[:6] == ["S010"] * 3 + ["S011"] * 3
    assert read_source("ckplus", tmp_path).splits().tolist() == ["train"] * 42


def test_expw_turns_top_left_right_bottom_round(tmp_path):
    like.expw(tmp_path)
    samples = list(read_source("expw", tmp_path))
    assert samples[0].box == (20, 10, 60, 90)
    assert samples[0].image == samples[1].image
    assert samples[1].id == "expw:angry_actor_0.jpg#1"


def test_abaw_numbers_frames_from_one_and_counts_what_it_leaves_out(tmp_path):
    like.abaw_expr(tmp_path)
    like.abaw_va(tmp_path)
    expressions, affect = read_source("abaw-expr", tmp_path), read_source("abaw-va", tmp_path)
    assert expressions.ids == ["abaw-expr:v1_left/00001", "abaw-expr:v1_left/00004", "abaw-expr:v2/00001", "abaw-expr:v2/00002"]  # fmt: skip
    assert expressions.header.left_out == {"not annotated": 1, "a frame without a picture": 1}
    assert [s.subject for s in expressions] == ["v1", "v1", "v2", "v2"]
    assert next(iter(expressions)).image == tmp_path / "cropped_aligned/v1_left/00001.jpg"
    assert affect.affect().tolist() == [[0.5, -0.25], [1, 0], [-1, 1]]
    assert affect.header.left_out == {"not annotated": 1}
    assert np.isnan(affect.targets()).all()


def test_fer2013_folders_take_the_split_from_the_name(tmp_path):
    like.msambare(tmp_path)
    rows = {s.id: row for s, row in zip(read_source("fer2013", tmp_path), rows_of(read_source("fer2013", tmp_path)), strict=True)}  # fmt: skip
    assert rows == {
        f"fer2013:{usage}_{90000 - i}": (like.SPLITS[usage], like.FER2013[code])
        for i, usage, code in like.fer2013_rows()
    }


def test_another_split_of_fer2013_carries_a_warning(tmp_path):
    like.jonathanoheix(tmp_path)
    for root in (tmp_path, tmp_path / "images"):
        manifest = read_source("fer2013", root)
        assert "not comparable" in manifest.header.warnings[0]
        assert len(manifest.split("validation")) == 14


def test_fer2013_parquet_files_are_put_in_row_order(tmp_path):
    like.fer2013_parquet(tmp_path)
    assert read_source("fer2013", tmp_path).ids == [f"fer2013:{i}" for i in range(35)]
    assert read_source("fer2013", tmp_path / "publictest.parquet").ids == [f"fer2013:{i}" for i in range(21, 28)]


def test_interleaved_parquet_files_are_sorted(tmp_path):
    like.ferplus_parquet(tmp_path)
    whole = pa.concat_tables([pq.read_table(p) for p in sorted(tmp_path.glob("*.parquet"))]).sort_by("row")
    for path in tmp_path.glob("*.parquet"):
        path.unlink()
    pq.write_table(whole.take(list(range(0, 35, 2))), tmp_path / "even.parquet")
    pq.write_table(whole.take(list(range(1, 35, 2))), tmp_path / "odd.parquet")
    assert read_source("fer2013", tmp_path).ids == [f"fer2013:{i}" for i in range(35)]
    assert rows_of(read_source("ferplus", tmp_path)) == like._ferplus_expected()


def test_ferplus_counts_rows_without_a_target(tmp_path):
    like.ferplus_csv(tmp_path)
    assert read_source("ferplus", tmp_path).header.left_out == {"the votes give no target by the rule 'majority'": 3}


@pytest.mark.parametrize("write", [like.ferplus_csv, like.ferplus_parquet])
def test_all_votes_are_also_those_of_rows_that_no_rule_keeps(write, tmp_path):
    write(tmp_path)
    votes = all_votes(tmp_path)
    assert list(votes) == read_source("fer2013", tmp_path).ids
    kept = read_source("ferplus", tmp_path)
    assert len(kept) < len(votes)
    for name, ours in zip(kept.ids, kept.votes(), strict=True):
        assert len(votes[name]) == 10
        assert sorted(votes[name][:8]) == sorted(ours)


@pytest.mark.parametrize("write", [like.msambare, like.jonathanoheix, like.competition_csv])
def test_ferplus_cannot_be_joined_to_forms_without_row_order(write, tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"follow the row order of fer2013\.csv.*is not the row"):
        read_source("ferplus", tmp_path)


def test_plain_classes_keep_their_names_in_order(tmp_path):
    like.class_folders(tmp_path)
    assert read_source("folders", tmp_path).header.labels == ("happiness", "sadness", "yawning")


def test_a_table_gives_all_its_columns(tmp_path):
    like.csv_table(tmp_path)
    one, two, three, _ = read_source("table", tmp_path / "faces.csv")
    assert (one.box, one.subject, one.valence, one.arousal) == ((1, 2, 30, 40), "ann", 0.5, 0.25)
    assert one.landmarks.shape == (5, 2)
    assert two.landmarks.shape == (68, 2)
    assert two.image == tmp_path / "pictures" / "1.png"
    assert np.isnan(two.valence)
    assert two.subject is None
    assert (three.valence, three.arousal) == (-1, 1)


def test_an_id_of_nought_is_an_id_and_nan_is_nothing(tmp_path):
    names = ["a.png", "b.png", "c.png"]
    for name in names:
        like.picture(tmp_path / name)
    columns = {
        "id": [10, 0, None],
        "path": names,
        "expression": ["happiness", "sadness", "anger"],
        "age": [1.5, float("nan"), None],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = read_source("table", tmp_path / "t.parquet")
    assert list(found.ids) == ["10", "0", "table:2"]
    assert found.table["age"].to_pylist() == ["1.5", None, None]


@pytest.mark.parametrize("name", ["table", "folders", "ferplus"])
def test_a_rule_that_is_none_is_refused_for_every_source(name, tmp_path):
    with pytest.raises(DataError, match=rf"{name}: unknown rule 'majorty'; did you mean 'majority'"):
        read_source(name, tmp_path, "majorty")


def test_one_expression_alone_stands_in_the_set_of_eight(tmp_path):
    like.picture(tmp_path / "happy" / "a.png")
    manifest = read_source("folders", tmp_path)
    assert manifest.counts()["happiness"] == 1
    assert manifest.header.labels == KNOWN_SETS["affectnet8"]


def test_hidden_and_other_files_are_no_pictures(tmp_path):
    like.class_folders(tmp_path)
    (tmp_path / "sad" / "notes.txt").write_text("x")
    (tmp_path / "sad" / ".DS_Store").write_text("x")
    (tmp_path / "__MACOSX").mkdir()
    manifest = read_source("folders", tmp_path)
    assert len(manifest) == 9
    assert manifest.header.left_out == {"not a picture file": 1}


def swap(name, old, new, count=1):
    """Spoil a text file: replace some words."""

    def spoil(root: Path):
        path = root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, count))

    return spoil


def save(name, array):
    """Spoil a .npy file."""
    return lambda root: np.save(root / name, array, allow_pickle=True)


def put(name, data=b""):
    """Put other bytes in a file's place."""
    return lambda root: (root / name).write_bytes(data)


def gone(name):
    """Take a file away."""
    return lambda root: (root / name).unlink()


def loop(name):
    """A link that leads round in a circle."""
    return lambda root: os.symlink(root, root / name, target_is_directory=True)


def again(name):
    """Repeat the last line."""

    def spoil(root: Path):
        lines = (root / name).read_text().splitlines()
        (root / name).write_text("\n".join([*lines, lines[-1]]))

    return spoil


LIST = "basic/EmoLabel/list_patition_label.txt"
EXPR = "EXPR/Train_Set/v1_left.txt"
VA = "VA/Train_Set/v1_right.txt"

BAD = [
    # AffectNet, first release
    ("affectnet with header", swap("training.csv", ",0,0.0,", ",11,0.0,"), r"training\.csv, row 0: expression '11'"),
    ("affectnet with header", swap("training.csv", ",0,0.0,", ",neutral,0.0,"), "row 0: expression 'neutral'; expected a code"),
    ("affectnet with header", swap("training.csv", ",0,0.0,", ",0,1.5,"), "row 0: valence: 1.5 is not between -1 and 1"),
    ("affectnet with header", swap("training.csv", ",0,0.0,", ",0,calm,"), "row 0: valence: 'calm' is not a number"),
    ("affectnet with header", swap("training.csv", ",0,0.0,", ",0,nan,"), "row 0: valence: 'nan' is not a number"),
    ("affectnet with header", swap("training.csv", "0.5;0;", "0.5;"), "row 0: landmarks: 135 numbers; expected 136"),
    ("affectnet with header", swap("training.csv", "0.5;0;", "0.5;zero;"), "row 0: landmarks: not numbers"),
    ("affectnet with header", swap("training.csv", ",2,3,20,", ",2,3,0,"), "row 0: the face is 0 wide"),
    ("affectnet with header", swap("training.csv", ",2,3,20,", ",left,3,20,"), "row 0: face_x: 'left' is not a number"),
    ("affectnet with header", swap("training.csv", "1/training1", "0/training0"), "row 1: the image 0/training0.jpg stands on an earlier row"),
    ("affectnet with header", swap("training.csv", "0/training0", "../training0"), "row 0: the path ../training0.jpg leaves"),
    ("affectnet with header", swap("training.csv", "0/training0", "/etc/training0"), "row 0: the path /etc/training0.jpg leaves"),
    ("affectnet with header", swap("training.csv", "0/training0", "C:\\\\training0"), "row 0: the path C:.*leaves"),
    ("affectnet with header", swap("training.csv", "0/training0", "..\\\\training0"), "row 0: the path .*leaves"),
    ("affectnet with header", gone("Manually_Annotated_Images/0/training0.jpg"), "row 0: no such image: .*training0.jpg"),
    ("affectnet with header", swap("training.csv", "valence", "valens"), "no valence"),
    ("affectnet with header", swap("training.csv", "subDirectory_filePath", "path"), r"training\.csv: starts with path,face_x"),
    ("affectnet with header", put("training.csv"), r"training\.csv: starts with nothing; expected subDirectory"),
    ("affectnet with header", put("training.csv", like.AFFECTNET_HEADER.encode() + b"\n"), "no rows here: the file ends after its header"),
    ("affectnet with header", put("training.csv", b"\xff\xfe\x00"), r"training\.csv, near line 1: not UTF-8"),
    ("affectnet with header", swap("training.csv", ",2,3,20,", ",2,20,"), "row 0: 8 fields; expected 9"),
    ("affectnet without header", swap("training.csv", ",0,0.0,", ",11,0.0,"), "row 0: expression '11'"),
    # AffectNet, 2021
    ("affectnet 2021", gone("train_set/annotations/3_aro.npy"), r"3_aro\.npy: no such annotation"),
    ("affectnet 2021", put("train_set/annotations/3_exp.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '''<U1"), r"3_exp\.npy: not a readable \.npy file"),
    ("affectnet 2021", gone("train_set/images/3.jpg"), "train_set: 12 annotations for 11 images"),
    ("affectnet 2021", save("train_set/annotations/3_lnd.npy", np.array(["1"] * 135)), r"3_lnd\.npy: landmarks: 135 numbers"),
    ("affectnet 2021", save("train_set/annotations/3_exp.npy", np.array("12")), r"3_exp\.npy: expression '12'"),
    ("affectnet 2021", save("train_set/annotations/3_exp.npy", np.array(["1", "2"])), r"3_exp\.npy: 2 values; expected one"),
    ("affectnet 2021", save("train_set/annotations/3_val.npy", np.array("-3")), r"3_val\.npy: valence: -3 is not between"),
    ("affectnet 2021", save("train_set/annotations/3_val.npy", np.array({"a": 1})), r"3_val\.npy: not a readable .npy file .*pickle"),
    ("affectnet 2021", put("train_set/annotations/3_val.npy", b"0.5"), r"3_val\.npy: not a readable .npy file"),
    ("affectnet 2021", put("train_set/annotations/3_val.npy", b""), r"3_val\.npy: not a readable .npy file"),
    ("affectnet 2021", loop("train_set/images/loop"), "loop: a link to a folder"),
    # AffectNet on Kaggle and AffectNet-HQ
    ("affectnet kaggle", swap("labels.csv", ",neutral,", ",calm,"), r"labels\.csv, row 0: unknown class 'calm'"),
    ("affectnet kaggle", swap("labels.csv", ",neutral,", ",0,"), "row 0: unknown class '0'"),
    ("affectnet kaggle", swap("labels.csv", "pth", "path"), "no pth"),
    ("affectnet kaggle", gone("neutral/image0000000.png"), "row 0: no such image"),
    ("affectnet kaggle", again("labels.csv"), "row 16: the image .* stands on an earlier row"),
    ("affectnet hq", lambda r: like.huggingface_parquet(r / "data/train-00000-of-00002.parquet", (0, 7), like.HQ_NAMES), r"row 1: label 7; expected a code from 0 to 6"),
    ("affectnet hq", lambda r: like.huggingface_parquet(r / "data/train-00000-of-00002.parquet", (0, 1), like.HQ_NAMES[::-1]), "its classes are surprise.*not AffectNet-HQ"),
    ("affectnet hq", put("data/train-00000-of-00002.parquet", b"PAR1"), "train-00000-of-00002.parquet: not a readable Parquet file"),
    # RAF-DB
    ("rafdb", swap(LIST, "train_00001.jpg 1", "train_00001.jpg 0"), r"list_patition_label\.txt, line 1: label '0'; expected a code from 1 to 7"),
    ("rafdb", swap(LIST, "train_00001.jpg 1", "train_00001.jpg 8"), "line 1: label '8'"),
    ("rafdb", swap(LIST, "train_00001.jpg 1", "train_00001.jpg"), "line 1: 'train_00001.jpg'; expected a name and a code"),
    ("rafdb", swap(LIST, "train_00001.jpg 1", "val_00001.jpg 1"), "line 1: 'val_00001.jpg' says no split"),
    ("rafdb", swap(LIST, "train_00001.jpg 1", "train_99999.jpg 1"), "line 1: no such image: .*train_99999_aligned.jpg"),
    ("rafdb", swap(LIST, "train_00002.jpg", "train_00001.jpg"), "line 2: the image train_00001_aligned.jpg stands"),
    ("rafdb", put(LIST), "no rows"),
    ("rafdb", put(LIST, b"train_\xff.jpg 1"), "not UTF-8"),
    # CK+48
    ("ckplus", lambda r: like.picture(r / "anger" / "010_004.png"), "010_004.png: no subject in the name"),
    ("ckplus", lambda r: like.picture(r / "bored" / "S010_004.png"), "bored: unknown class 'bored'"),
    ("ckplus", loop("anger/loop"), "loop: a link to a folder"),
    ("ckplus", lambda r: os.symlink(r / "gone.png", r / "anger" / "S010_1.png"), "S010_1.png: a link to a folder, or one that leads nowhere"),
    # ExpW
    ("expw", swap("label/label.lst", "34.5 0", "34.5 7"), r"label\.lst, line 1: label '7'; expected a code from 0 to 6"),
    ("expw", swap("label/label.lst", " 10 20 60 90 ", " 10 60 20 90 "), "line 1: box: 60,10,20,90 is empty"),
    ("expw", swap("label/label.lst", " 10 20 60 90 ", " ten 20 60 90 "), "line 1: box: 'ten' is not a number"),
    ("expw", swap("label/label.lst", " 10 20 60 90 ", " 10 20 60 "), "line 1: 7 fields; expected name, face id"),
    ("expw", swap("label/label.lst", "_0.jpg 1", "_0.jpg 0"), r"line 2: the image angry_actor_0.jpg \(face 0\) stands"),
    ("expw", gone("image/origin/angry_actor_0.jpg"), "line 1: no such image"),
    ("expw", put("label/label.lst"), "no rows"),
    # ABAW
    ("abaw expr", swap(EXPR, "\n7", "\n8"), r"v1_left\.txt, line 5: expression '8'; expected a code from -1 to 7"),
    ("abaw expr", swap(EXPR, "\n7", "\n0.5"), "line 5: expression '0.5'"),
    ("abaw expr", swap(EXPR, "Neutral,Anger", "Anger,Neutral"), r"v1_left\.txt: its first line is anger,neutral,disgust.*expected Neutral,Anger"),
    ("abaw expr", put("EXPR/Train_Set/v9.txt"), r"v9\.txt: its first line is empty; expected Neutral,Anger"),
    ("abaw expr", put("EXPR/Train_Set/v9.txt", like.EXPR.encode() + b"\n0\n"), r"v9\.txt: no folder v9 with its frames"),
    ("abaw expr", put(EXPR, like.EXPR.encode()), r"v1_left\.txt: no rows"),
    ("abaw expr", put(EXPR, like.EXPR.encode() + b"\n\n"), r"v1_left\.txt: no rows"),
    ("abaw expr", swap(EXPR, "\n-1", "\n\n-1"), r"v1_left\.txt, line 3: is blank, and lines follow"),
    ("abaw expr", lambda root: [path.rename(path.with_suffix(".png")) for path in root.rglob("*.jpg")], r"no row is left of abaw-expr \(5: a frame without a picture"),
    ("abaw va", swap(VA, "0.5,-0.25", "0.5"), r"v1_right\.txt, line 2: 1 values; expected valence,arousal"),
    ("abaw va", swap(VA, "0.5,-0.25", "0.5,1.25"), "line 2: arousal: 1.25 is not between -1 and 1"),
    ("abaw va", swap(VA, "0.5,-0.25", "0.5,"), "line 2: arousal: '' is not a number"),
    # SFEW
    ("sfew", lambda r: like.picture(r / "Train" / "Contempt" / "a.png"), "Contempt: unknown class 'Contempt'"),
    ("sfew", loop("Train/Angry/loop"), "loop: a link to a folder"),
    # FER2013 and FER+
    ("icml_face_data.csv", swap("icml_face_data.csv", "0,Training,", "7,Training,"), r"icml_face_data\.csv, row 0: emotion '7'"),
    ("competition", swap("train.csv", "\n0,", "\n9,"), r"train\.csv, row 0: emotion '9'"),
    ("competition", swap("test.csv", " ", " 30 "), r"test\.csv, row 0: 2305 pixels"),
    ("fer2013.csv", put("fer2013.csv"), "the header is empty; expected emotion,pixels,Usage"),
    ("msambare", lambda r: like.picture(r / "train" / "angry" / "im17.jpg"), "im17.jpg: expected a name that says the split of train/"),
    ("msambare", lambda r: like.picture(r / "train" / "angry" / "PublicTest_1.jpg"), "PublicTest_1.jpg: expected a name that says the split of train/"),
    ("msambare", lambda r: like.picture(r / "test" / "angry" / "Training_1.jpg"), "Training_1.jpg: expected a name that says the split of test/"),
    ("msambare", lambda r: like.picture(r / "train" / "bored" / "Training_1.jpg"), "bored: unknown class 'bored'"),
    ("msambare", lambda r: like.picture(r / "train" / "sad" / "Training_90000.jpg"), "Training_90000.jpg: an image of this name lies in another class folder"),
    ("fer2013 parquet", lambda r: pq.write_table(pq.read_table(r / "publictest.parquet"), r / "copy.parquet"), "row 21 of FER2013 is there twice"),
    ("ferplus csv", swap("fer2013new.csv", "fer0000003.png,7", "fer0000003.png,-7"), r"fer2013new\.csv, row 0: neutral: '-7' is not a number of votes"),
    ("ferplus csv", lambda r: (r / "fer2013new.csv").write_text("\n".join((r / "fer2013new.csv").read_text().splitlines()[:20])), "19 rows of votes, but FER2013 has a row 19; rows match by order"),
    ("ferplus csv", gone("fer2013new.csv"), r"no fer2013new\.csv with the FER\+ votes"),
    # plain forms
    ("class folders", lambda r: like.picture(r / "1" / "a.png"), "the class '1' is a code"),
    ("class folders", loop("loop"), "loop: a link to a folder"),
    ("class folders", loop("sad/loop"), "loop: a link to a folder"),
    ("class folders", lambda r: like.picture(r / "train" / "sad" / "a.png"), "some folders are splits, but not Happy, sad, yawning"),
    ("csv table", swap("faces.csv", "happy", "3"), r"faces\.csv, row 0: the class '3' is a code"),
    ("csv table", swap("faces.csv", ",train,", ",trian,"), "row 0: unknown split 'trian'; did you mean 'train'"),
    ("csv table", swap("faces.csv", "expression", "expresion"), "unknown column 'expresion'; did you mean 'expression'"),
    ("csv table", swap("faces.csv", "path,", "file,"), "no column path; it has: file"),
    ("csv table", swap("faces.csv", "0.5;0;", "0.5;"), "row 0: landmarks: 9 numbers; expected 10 or 136"),
    ("csv table", swap("faces.csv", "1,2,30,40", "1,2,30"), "row 0: box: 3 numbers"),
    ("csv table", swap("faces.csv", "1,2,30,40", "30,2,1,40"), "row 0: box: 30,2,1,40 is empty"),
    ("csv table", swap("faces.csv", "0.5,0.25", "0.5,much"), "row 0: arousal: 'much' is not a number"),
    ("csv table", swap("faces.csv", "pictures/0.png", "../0.png"), "row 0: the path ../0.png leaves"),
    ("csv table", swap("faces.csv", "40,6,70,40", "5,6,30,40"), r"row 3: the image pictures/2.png \(face 5,6,30,40\) stands"),
    ("csv table", swap("faces.csv", "pictures\\1.png", "pictures"), "row 1: no such image"),
    ("csv table", put("faces.csv"), "no column path; it has: nothing"),
    ("csv table", put("faces.csv", b"path,expression\n"), "no rows"),
    ("csv table", put("faces.csv", b"path,path\na,b\n"), "the header names a column twice"),
    ("huggingface", lambda r: like.huggingface_parquet(r / "data/train-00000-of-00001.parquet", (0, 1)), "the metadata names no classes"),
    ("huggingface", lambda r: like.huggingface_parquet(r / "data/train-00000-of-00001.parquet", (0, 2), ("happy", "bored")), "row 1: label 2; expected a code from -1 to 1"),
    ("huggingface", lambda r: like.huggingface_parquet(r / "data/train-00000-of-00001.parquet", (0, 1), ("0", "1")), "the class '0' is a code"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "spoil", "message"), BAD, ids=[f"{form}-{at}" for at, (form, _, _) in enumerate(BAD)])
def test_bad_input_names_file_and_row(form, spoil, message, tmp_path):
    source, write = like.FORMS[form]
    write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        read_source(source, tmp_path)


def test_a_table_whose_labels_have_another_name_is_not_read_as_unlabelled(tmp_path):
    like.picture(tmp_path / "a.png")
    for name, more in (("label", ""), ("Emotion", ""), ("class", ""), ("emotion", ",valence")):
        (tmp_path / "faces.csv").write_text(f"path,{name}{more}\na.png,happy{more and ',0.5'}\n")
        with pytest.raises(DataError, match=f"no column expression, but '{name}'; rename it to expression"):
            read_source("table", tmp_path / "faces.csv")


def test_a_fact_beside_affect_may_be_called_class(tmp_path):
    like.picture(tmp_path / "a.png")
    (tmp_path / "faces.csv").write_text("path,valence,arousal,class\na.png,0.5,0.1,3b\n")
    assert read_source("table", tmp_path / "faces.csv").table["class"].to_pylist() == ["3b"]


#: What Excel writes in Europe: a byte order mark, semicolons, decimal commas.
RATED = """\ufeffpath;rater;expression;valence;site;mood
a.png;anna;Happy;0,5;A;x
a.png;ben;happiness;0,7;A;y
b.png;anna;sad;;A;x
b.png;ben;Neutral;;A;y
b.png;cleo;Angry;;A;z
a.png;cleo;neutral;;A;z
c.png;anna;;;A;x
d.png;cleo;joy;;A;x
"""


@pytest.mark.parametrize(
    ("rule", "targets"),
    [
        ("majority", {"a": [0, 1, 0, 0], "c": None, "d": [0, 1, 0, 0]}),
        ("plain", {"a": [0, 1, 0, 0], "b": [1, 0, 0, 0], "c": None, "d": [0, 1, 0, 0]}),
        ("distribution", {"a": [1 / 3, 2 / 3, 0, 0], "b": [1 / 3, 0, 1 / 3, 1 / 3], "c": None, "d": [0, 1, 0, 0]}),
    ],
)
def test_several_raters_become_votes(rule, targets, tmp_path):
    for name in "abcd":
        like.picture(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text(RATED, encoding="utf-8")
    found = read_source("table", tmp_path / "t.csv", rule)
    assert found.header.labels == ("neutral", "happiness", "sadness", "anger")
    assert found.header.rule == rule
    assert [sample.image.stem for sample in found] == list(targets)
    for sample, target in zip(found, targets.values(), strict=True):
        assert sample.target is None if target is None else np.allclose(sample.target, target)
    votes = dict(zip(targets, found.votes().tolist(), strict=True))
    assert (votes["a"], votes["c"], votes["d"]) == ([1, 2, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0])
    first = next(iter(found))
    assert first.valence == pytest.approx(0.6), "the mean of those who gave one"
    assert first.facts == {"site": "A", "mood": None}, "what raters say otherwise is unknown"
    left = {"no label has more than half of the votes (rule 'majority')": 1} if rule == "majority" else {}
    assert found.header.left_out == left


def test_a_text_in_the_column_image_is_a_path(tmp_path):
    like.picture(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("image;expression;valence\na.png;sad;-0,5\n", encoding="utf-8-sig")
    [found] = read_source("table", tmp_path / "t.csv")
    assert (found.image.name, found.valence) == ("a.png", -0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,rater,expression\na.png,anna,sad\na.png,anna,happy\n", r"row 1: the image a.png \(face of rater anna\) stands"),
        ("path,rater,expression\na.png,,sad\n", "row 0: the column rater is empty; say whose row it is"),
        ("path,rater,split,expression\na.png,x,train,sad\na.png,y,test,sad\n", "row 1: split 'test', but 'train' in .*row 0, of the same face"),
        ("path,expression\na.png,sad\na.png,happy\n", "row 1: .* if several people rated it, say who in a column rater"),
    ],
)  # fmt: skip
def test_raters_who_contradict_themselves_are_told(text, message, tmp_path):
    like.picture(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_source("table", tmp_path / "t.csv")


def test_names_that_are_not_utf8_are_told(tmp_path):
    like.picture(tmp_path / "happy" / "a.png")
    (tmp_path / os.fsdecode(b"happy/\xff.txt")).write_text("no picture: nobody needs its name")
    assert len(read_source("folders", tmp_path)) == 1
    shutil.copy(tmp_path / "happy" / "a.png", os.fsencode(tmp_path / "happy") + b"/\xff.png")
    with pytest.raises(DataError, match=r"xff\.png'.*not UTF-8.*rename it"):
        read_source("folders", tmp_path)


def test_a_folder_of_another_source_is_named(tmp_path):
    like.affectnet2021(tmp_path)
    with pytest.raises(DatasetNotFound, match="it looks like affectnet2021: read it as that"):
        read_source("affectnet", tmp_path)


def test_parquet_files_without_row_numbers_are_one_file(tmp_path):
    like.fer2013_parquet(tmp_path)
    found = sorted(tmp_path.rglob("*.parquet"))
    for path in found:
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["row"]), path)
    with pytest.raises(DataError, match="no column row"):
        read_source("fer2013", tmp_path)


def test_votes_that_no_row_takes_are_told(tmp_path):
    source, write = like.FORMS["ferplus csv"]
    write(tmp_path)
    path = tmp_path / "fer2013.csv"
    assert read_source(source, tmp_path).header.warnings == ()
    head, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(head + "".join(rest[:-1]))
    assert (
        "votes after a row that was taken out belong to other faces" in read_source(source, tmp_path).header.warnings[0]
    )


@pytest.mark.parametrize("source", SOURCES)
def test_an_empty_folder_says_what_was_expected(source, tmp_path):
    with pytest.raises(DatasetNotFound, match=r"expected|expects"):
        read_source(source, tmp_path)


@pytest.mark.parametrize("form", like.FORMS)
def test_read_manifests_survive_writing(form, tmp_path):
    source, write = like.FORMS[form]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    manifest = read_source(source, tmp_path / "data")
    manifest.write(tmp_path / "m.parquet")
    back = type(manifest).read(tmp_path / "m.parquet")
    assert rows_of(back) == rows_of(manifest)
    assert back.header.left_out == manifest.header.left_out
    assert all(np.array_equal(read_image(a.image), read_image(b.image)) for a, b in zip(back, manifest, strict=True))


@pytest.fixture(scope="module")
def real_forms(test_data, tmp_path_factory):
    """The first 1,024 real rows of FER2013's Training and of its PublicTest as Parquet, as CSV with FER+'s votes, and as folders."""
    out = tmp_path_factory.mktemp("forms")
    parquet = out / "parquet"
    parquet.mkdir()
    for name in ("train.parquet", "publictest.parquet"):
        pq.write_table(pq.ParquetFile(test_data / "fer2013" / name).read_row_group(0), parquet / name)
    command = [sys.executable, test_data / "to_kaggle_forms.py", parquet / "train.parquet", parquet / "publictest.parquet"]  # fmt: skip
    (out / "csv").mkdir()
    outputs = ["--csv", out / "csv" / "fer2013.csv", "--ferplus", out / "csv" / "fer2013new.csv", "--folders", out / "folders"]  # fmt: skip
    subprocess.run([str(word) for word in command + outputs], check=True, capture_output=True)
    return parquet, out / "csv", out / "folders"


@pytest.mark.parametrize(("source", "rule"), [("fer2013", "majority"), ("ferplus", "majority"), ("ferplus", "distribution")])  # fmt: skip
def test_real_rows_are_the_same_from_parquet_and_csv(source, rule, real_forms):
    a, b = (read_source(source, root, rule) for root in real_forms[:2])
    numbers = [*range(1024), *range(28709, 28709 + 1024)]  # of the whole file's rows, which Parquet tells
    assert a.ids == [f"{name}:{numbers[int(at)]}" for name, at in (of.split(":") for of in b.ids)]
    assert np.array_equal(a.splits(), b.splits())
    assert np.array_equal(a.targets(), b.targets())
    assert a.header.left_out == b.header.left_out
    if rule in ("", "majority"):
        assert all(np.array_equal(read_image(x.image), read_image(y.image)) for x, y in zip(a, b, strict=True))


def test_real_rows_are_the_same_from_folders(real_forms):
    a, b = read_source("fer2013", real_forms[0]), read_source("fer2013", real_forms[2])
    number = {int(name.split("_")[1]): at for at, name in enumerate(b.ids)}
    b = b.take([number[int(name.split(":")[1])] for name in a.ids])
    assert len(a) == len(number)
    assert np.array_equal(a.splits(), b.splits())
    assert np.array_equal(a.targets(), b.targets())
    assert all(np.array_equal(read_image(x.image), read_image(y.image)) for x, y in zip(a, b, strict=True))
