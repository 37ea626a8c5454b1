"""Choosing rows: splits, subsets, caps, merges; drawn faces; chips of large manifests; submissions."""

import csv
import os
import re
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from builders import drawn_face
from mien.data import prepare as preparing
from mien.data.clean import clean
from mien.data.manifest import Header, Manifest, Sample, is_manifest, make_manifest
from mien.data.prepare import chips, five_of, prepare, prepare_file
from mien.data.split import cap, groups_of, merge, project, split
from mien.data.synthetic import FRAMING, synthetic
from mien.errors import DataError, OutputError
from mien.evaluation.predictions import Predictions
from mien.evaluation.submission import write_submission
from mien.faces import Face
from mien.labels import AFFECT_MEANS, LabelSet, label_set
from mien.spec import CropSpec

LABELS = LabelSet(("happiness", "sadness", "anger"))


def png(seed: int) -> bytes:
    return bytes(cv2.imencode(".png", drawn_face(24, seed=seed))[1])


def rows(count=60, labels=LABELS, subject=None, source="drawn", split="train") -> Manifest:
    """`count` different pictures, the labels in turn."""
    samples = [
        Sample(f"r{i}", png(i), labels.onehot(labels.names[i % len(labels)]), split, subject=subject and subject(i))
        for i in range(count)
    ]
    return make_manifest(samples, Header(source=source, labels=labels.names))


def test_a_split_is_seeded_and_keeps_its_shares_in_every_class():
    manifest = rows(90)
    done = split(manifest, {"train": 0.8, "validation": 0.1, "test": 0.1}, seed=3)
    assert done.ids == manifest.ids
    assert np.array_equal(done.splits(), split(manifest, {"train": 0.8, "validation": 0.1, "test": 0.1}, 3).splits())
    assert not np.array_equal(
        done.splits(), split(manifest, {"train": 0.8, "validation": 0.1, "test": 0.1}, 4).splits()
    )
    assert done.split("train").counts() == dict.fromkeys(LABELS, 24)
    assert done.split("test").counts() == dict.fromkeys(LABELS, 3)


def test_no_person_picture_or_near_copy_stands_on_two_sides():
    manifest = rows(80, subject=lambda i: f"S{i // 4:03}")
    twins = manifest.table["image"].to_pylist()
    twins[7], twins[41] = twins[70], twins[70]  # one picture under three persons
    import pyarrow as pa

    at = manifest.table.schema.get_field_index("image")
    table = manifest.table.set_column(at, "image", pa.array(twins, manifest.table.schema.field("image").type))
    manifest = Manifest(manifest.header, table)
    near = [("r0", "r20")]
    groups = groups_of(manifest, near)
    assert len(set(groups)) == 20 - 3
    assert groups[4] == groups[41] == groups[71]
    assert groups[0] == groups[23]
    done = split(manifest, {"train": 0.5, "test": 0.5}, 0, near).splits()
    for group in set(groups):
        assert len(set(done[groups == group])) == 1


def test_pictures_that_cannot_be_read_are_not_dealt_out(tmp_path):
    (tmp_path / "there.png").write_bytes(png(1))
    names = ("there.png", "gone/a.png", "gone/b.png")
    samples = [Sample(f"r{i}", Path(name), LABELS.onehot("anger")) for i, name in enumerate(names)]
    manifest = make_manifest(samples, rows(1).header, tmp_path)
    with pytest.raises(
        DataError,
        match=r"drawn: 2 of 3 pictures cannot be read.*the first: r1: .*a\.png.*mien data clean --rules undecodable",
    ):
        split(manifest, {"train": 0.5, "test": 0.5}, 0)
    assert len(groups_of(clean(manifest, ["undecodable"]).manifest)) == 1


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        ({"train": 0.5}, "sum to 1"),
        ({"trian": 1.0}, "did you mean 'train'"),
        ({"train": 0.5, "validation": 0.25, "test": 0.25}, "too few for a split"),
    ],
)
def test_impossible_splits_are_refused(shares, why):
    with pytest.raises(DataError, match=why):
        split(rows(2), shares, 0)


def test_one_row_of_a_class_and_one_class_alone_split():
    lonely = make_manifest(
        [Sample(f"r{i}", png(i), LABELS.onehot("sadness" if i else "anger")) for i in range(20)],
        Header(source="x", labels=LABELS.names),
    )
    done = split(lonely, {"train": 0.5, "test": 0.5}, 0)
    assert abs(int((done.splits() == "train").sum()) - 10) <= 1


def test_a_subset_moves_targets_and_counts_what_it_leaves_out():
    chosen = project(rows(60), ("sadness", "happiness"))
    assert len(chosen) == 40
    assert chosen.header.left_out == {"labels outside sadness, happiness": 20}
    assert chosen.counts() == {"sadness": 20, "happiness": 20}
    with pytest.raises(DataError, match="none of them is in"):
        project(rows(3), ("pain", "none"))


def test_a_subset_of_votes_keeps_the_rows_of_its_labels():
    """A row stays if a kept label is among its largest entries; what fewer people said makes no other expression of it."""
    votes = {"kept": (0.5, 0.25, 0.25), "second": (0.25, 0.5, 0.25), "other": (0.2, 0.1, 0.7), "tied": (0.4, 0.2, 0.4)}
    header = Header(source="x", labels=("happiness", "sadness", "surprise"))
    samples = [Sample(name, png(i), np.array(row, np.float32)) for i, (name, row) in enumerate(votes.items())]
    soft = make_manifest([*samples, Sample("nobody", png(9))], header)
    two = project(soft, ("happiness", "sadness"))
    assert two.ids == ["kept", "second", "tied", "nobody"]
    assert np.allclose(two.targets()[:3], [[2 / 3, 1 / 3], [1 / 3, 2 / 3], [2 / 3, 1 / 3]])
    assert two.header.left_out == {"labels outside happiness, sadness": 1}
    assert project(soft, ("surprise", "happiness", "sadness")).ids == soft.ids


def test_a_cap_is_seeded_and_keeps_the_order():
    capped = cap(rows(60), 5, seed=1)
    assert capped.counts() == dict.fromkeys(LABELS, 5)
    assert capped.ids == sorted(capped.ids, key=lambda name: int(name[1:]))
    assert capped.ids == cap(rows(60), 5, seed=1).ids
    assert len(cap(rows(60), 100, 0)) == 60


def test_merged_rows_share_labels_and_keep_their_pictures(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").write_bytes(png(99))
    own = LabelSet(("neutral", "anger"))
    other = make_manifest(
        [Sample("r1", Path("a.png"), own.onehot("anger"))], Header(source="o", labels=own.names), tmp_path / "d"
    )
    done = merge([rows(6), other])
    assert list(done.labels) == ["neutral", "happiness", "sadness", "anger"]
    assert len(set(done.ids)) == 7
    assert done.counts() == {"neutral": 0, "happiness": 2, "sadness": 2, "anger": 3}
    done.write(tmp_path / "m.parquet")
    last = list(Manifest.read(tmp_path / "m.parquet"))[-1]
    assert last.image.read_bytes() == png(99)
    with pytest.raises(DataError, match="cropped in different ways"):
        merge([rows(6), synthetic(4)])


def test_merging_sums_what_two_parts_of_one_source_left_out():
    one, two = (
        Manifest(msgspec.structs.replace(part.header, left_out={"uncertain": 2, "no face": i}), part.table, None)
        for i, part in enumerate((rows(4), rows(5)))
    )
    assert merge([one, two]).header.left_out == {"drawn: uncertain": 4, "drawn: no face": 1}


def test_a_manifest_elsewhere_finds_its_pictures(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").write_bytes(png(1))
    (tmp_path / "out").mkdir()
    make_manifest([Sample("a", Path("a.png"))], rows(3).header, tmp_path / "d").write(tmp_path / "out" / "m.parquet")
    [sample] = Manifest.read(tmp_path / "out" / "m.parquet")
    assert sample.image.read_bytes() == png(1)
    assert is_manifest(tmp_path / "out" / "m.parquet")
    assert not is_manifest(tmp_path / "d" / "a.png")
    with pytest.raises(DataError, match=r"the path \.\./a\.png leaves the dataset's folder"):
        make_manifest([Sample("a", Path("../a.png"))], rows(3).header, tmp_path)


def test_drawn_faces_know_their_expression_and_affect():
    drawn = synthetic(40, seed=1)
    assert drawn.counts() == dict.fromkeys(AFFECT_MEANS, 5)
    assert drawn.header.framing == FRAMING
    again = synthetic(40, seed=1)
    assert drawn.fingerprint() == again.fingerprint() != synthetic(40, seed=2).fingerprint()
    affect = drawn.affect()
    for i, name in enumerate(AFFECT_MEANS):
        share = affect[i] / np.array(AFFECT_MEANS[name])
        assert np.isclose(share[0], share[1], atol=1e-5)
        assert 0.6 <= share[0] <= 1.0
    assert {name: int((drawn.splits() == name).sum()) for name in ("train", "validation", "test")} == {
        "train": 24,
        "validation": 8,
        "test": 8,
    }


def test_a_chip_cut_by_its_landmarks_is_the_drawing():
    spec = CropSpec(width=64, height=64, align="five", points=FRAMING.points)
    placed = chips(prepare(synthetic(8, plain=False), spec).chips)
    plain = chips(prepare(synthetic(8), spec).chips)
    assert np.abs(placed.astype(int) - plain).mean() < 1


def test_sixty_eight_landmarks_give_five():
    marks = np.arange(136, dtype=np.float32).reshape(68, 2)
    five = five_of(marks)
    assert np.allclose(five, [marks[36:42].mean(0), marks[42:48].mean(0), marks[30], marks[48], marks[54]])
    with pytest.raises(DataError, match="67 landmarks; expected 5 or 68"):
        five_of(marks[:67])


#: Five landmarks as they sit in the detector's box (150, 90, 250, 215).
FIVE = np.array([(150, 90)], np.float32) + np.array([(26, 47), (74, 47), (50, 73), (31, 92), (69, 92)], np.float32)


def sixty_eight(five: np.ndarray) -> np.ndarray:
    """68 landmarks that say no more than these five: the jaw and all else at the nose."""
    marks = np.repeat(five[2:3], 68, axis=0)
    marks[36:42], marks[42:48], marks[48], marks[54] = five[0], five[1], five[3], five[4]
    return marks


def framing_of(landmarks: np.ndarray, detector=None, align="box", box=None) -> tuple[float, ...]:
    """Where in the picture the chip of a row with these landmarks begins and ends: x0, y0, x1, y1."""
    across, down = np.meshgrid(np.arange(400) * 0.5, np.arange(300) * 0.5)
    picture = np.stack([across, down, 0 * down], axis=2).astype(np.uint8)
    image = bytes(cv2.imencode(".png", picture[..., ::-1])[1])
    manifest = make_manifest([Sample("a", image, box=box, landmarks=landmarks)], rows(1).header)
    spec = CropSpec(width=50, height=50, align=align, points=FRAMING.points)
    [chip] = chips(prepare(manifest, spec, detector).chips)
    low, high = chip[0, 0].astype(float) * 2, chip[-1, -1].astype(float) * 2
    return low[0], low[1], high[0], high[1]


def faces_at(*boxes):
    return lambda image: [Face(box) for box in boxes]  # noqa: ARG005


def no_detector(_):
    raise AssertionError("the detector was asked")


@pytest.mark.parametrize("landmarks", [FIVE, sixty_eight(FIVE)], ids=["5", "68"])
def test_landmarks_without_a_box_are_framed_as_a_detector_frames_them(landmarks):
    wanted = framing_of(landmarks, no_detector, box=(150, 90, 250, 215))
    found = faces_at((0, 0, 390, 290), (150, 90, 250, 215), (0, 0, 60, 60))
    assert framing_of(landmarks, found) == wanted
    for blind in (None, faces_at(), faces_at((0, 0, 60, 60))):  # no detector, no face, another face
        assert np.allclose(framing_of(landmarks, blind), wanted, atol=8)


def test_a_tilted_face_without_a_box_keeps_its_size_and_middle():
    turn = np.array([(0.94, -0.34), (0.34, 0.94)], np.float32)
    middle = FIVE.mean(axis=0)
    tilted = (FIVE - middle) @ turn.T + middle
    x0, y0, x1, y1 = framing_of(tilted)
    assert np.allclose((x1 - x0, y1 - y0), 125, atol=8)


def test_a_crop_by_landmarks_asks_no_detector_for_a_box():
    assert framing_of(FIVE, no_detector, align="eyes") == framing_of(FIVE, align="eyes")


def broken(count=20) -> Manifest:
    samples = [Sample(f"r{i}", b"no picture" if i == 3 else png(i), LABELS.onehot("anger")) for i in range(count)]
    return make_manifest(samples, Header(source="drawn", labels=LABELS.names, framing=SPEC))


SPEC = CropSpec(width=24, height=24, border=2)


def test_rows_without_a_chip_are_counted_by_split(tmp_path, monkeypatch):
    """And judging says how many it does not judge."""
    monkeypatch.setattr(preparing, "_BLOCK", 4)
    rows = split(
        make_manifest([Sample(f"p{i}", png(i)) for i in range(40)], broken().header), {"train": 0.5, "test": 0.5}, 0
    )
    gone = int(np.flatnonzero(rows.splits() == "test")[3])
    images = [sample.image if i != gone else b"no picture" for i, sample in enumerate(rows)]
    spoiled = rows.with_images(images, rows.header)
    prepare_file(spoiled, SPEC, tmp_path / "c.parquet")
    for done in (prepare(spoiled, SPEC).chips, Manifest.read(tmp_path / "c.parquet")):
        assert done.header.left_out == {"no chip (test)": 1}
        assert preparing.without_chip(done.split("test")) == 1
        assert preparing.without_chip(done.split("train")) == 0
        assert preparing.without_chip(merge([done, done]).split("test")) == 2
        anew = split(done, {"train": 0.5, "test": 0.5}, 1)
        assert anew.header.left_out == {"no chip": 1}, "of which split is not known any more"
        assert preparing.without_chip(anew.split("test")) == 0


def test_of_pictures_that_are_faces_the_whole_is_taken_where_none_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_BLOCK", 2)
    samples = [Sample(f"f{i}", png(i), LABELS.onehot("anger")) for i in range(6)]
    faces, photos = (make_manifest(samples, Header(source=name, labels=LABELS.names)) for name in ("rafdb", "table"))

    def detector(_):  # finds nothing in the first two
        found.append(1)
        return [] if len(found) <= 2 else [Face((4, 4, 20, 20))]

    found: list[int] = []
    done = prepare(faces, SPEC, detector)
    assert done.missed == []
    assert done.chips.table[preparing.FOUND].to_pylist() == ["no"] * 2 + ["yes"] * 4
    whole = prepare(make_manifest(samples, Header(source="x", labels=LABELS.names, framing=SPEC)), SPEC).chips
    assert (chips(done.chips)[:2] == chips(whole)[:2]).all()
    found.clear()
    assert prepare_file(faces, SPEC, tmp_path / "c.parquet", lambda: detector) == (6, [])
    assert preparing.unfound(Manifest.read(tmp_path / "c.parquet").table) == 2
    found.clear()
    both = prepare(merge([faces.take([0]), photos.take([1, 2])]), SPEC, detector)
    assert both.chips.table[preparing.FOUND].to_pylist() == ["no", None]
    assert len(both.missed) == 1


def test_chips_are_not_cut_again(tmp_path):
    cut = prepare(broken(), SPEC).chips
    with pytest.raises(DataError, match="drawn: holds chips already, cut as .*prepare the manifest of pictures"):
        prepare(cut, SPEC)
    with pytest.raises(DataError, match="holds chips already"):
        prepare_file(cut, SPEC, tmp_path / "again.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_preparing_goes_on_to_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_BLOCK", 4)
    count, missed = prepare_file(broken(), SPEC, tmp_path / "whole.parquet", workers=2)
    assert (count, [name for name, _ in missed]) == (19, ["r3"])
    real, cut = preparing._cut, []

    class Killed(BaseException):
        pass

    def kill(manifest, *rest):
        if len(cut) == 3:
            raise Killed
        cut.append(manifest.ids)
        return real(manifest, *rest)

    monkeypatch.setattr(preparing, "_cut", kill)
    with pytest.raises(Killed):
        prepare_file(broken(), SPEC, tmp_path / "cut.parquet")
    assert not (tmp_path / "cut.parquet").exists()
    monkeypatch.setattr(preparing, "_cut", lambda manifest, *rest: (cut.append(manifest.ids), real(manifest, *rest))[1])
    prepare_file(broken(), SPEC, tmp_path / "cut.parquet")
    assert len(cut) == 5  # three blocks before the kill, two after it
    a, b = (Manifest.read(tmp_path / f"{name}.parquet") for name in ("whole", "cut"))
    assert a.fingerprint() == b.fingerprint()
    assert list(csv.reader((tmp_path / "cut.missed.csv").open()))[1][0] == "r3"
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(OutputError, match="exists already"):
        prepare_file(broken(), SPEC, tmp_path / "cut.parquet")


def test_rows_without_a_chip_are_listed_on_windows_too(tmp_path, monkeypatch):
    def written(path, text, encoding):  # as there, where a line of a text ends in two bytes
        path.write_bytes(text.replace("\n", "\r\n").encode(encoding))

    monkeypatch.setattr(Path, "write_text", written)
    count, missed = prepare_file(broken(), SPEC, tmp_path / "m.parquet")
    assert (count, [name for name, _ in missed]) == (19, ["r3"])
    with (tmp_path / "m.missed.csv").open(newline="", encoding="utf-8") as file:
        assert [row[0] for row in csv.reader(file)] == ["id", "r3"]


def interrupted(folder, monkeypatch):
    """The folder of blocks of a run that was stopped before it joined them."""
    monkeypatch.setattr(preparing, "_BLOCK", 4)
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(preparing, "_joined", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        prepare_file(broken(), SPEC, folder / "m.parquet")
    return folder / ".m.parquet.parts"


@pytest.mark.parametrize(
    ("name", "keep"),
    [("000001.parquet", 0), ("000001.parquet", 300), ("000001.csv", None), ("000000.csv", 0), ("000000.csv", 2)],
)
def test_blocks_that_lost_their_end_are_made_anew(name, keep, tmp_path, monkeypatch):
    part = interrupted(tmp_path, monkeypatch) / name
    if keep is None:
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:keep])
    real, cut = preparing._cut, []
    monkeypatch.setattr(preparing, "_cut", lambda rows, *rest: (cut.append(rows.ids[0]), real(rows, *rest))[1])
    count, missed = prepare_file(broken(), SPEC, tmp_path / "m.parquet")
    assert (count, [row for row, _ in missed]) == (19, ["r3"])
    assert cut == ["r4" if name.startswith("000001") else "r0"]
    assert Manifest.read(tmp_path / "m.parquet").fingerprint() == prepare(broken(), SPEC).chips.fingerprint()


def test_one_run_at_a_time_prepares_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_BLOCK", 4)
    refused = []

    def meanwhile(blocks, _):
        for block in blocks:
            left = {path for path in (tmp_path / ".m.parquet.parts").iterdir() if not path.name.startswith(".")}
            with pytest.raises(OutputError) as caught:
                prepare_file(broken(), SPEC, tmp_path / "m.parquet", overwrite=bool(block % 2))
            refused.append(str(caught.value))
            assert left <= set((tmp_path / ".m.parquet.parts").iterdir())
            yield block

    assert prepare_file(broken(), SPEC, tmp_path / "m.parquet", progress=meanwhile)[0] == 19
    assert len(refused) == 5
    place = re.escape(str(tmp_path / "m.parquet"))
    who = rf"{place}: another run prepares it \(process {os.getpid()} on .*\); wait for it, or choose another --out"
    assert all(re.fullmatch(who, words) for words in refused)
    assert not list(tmp_path.glob(".*"))


def test_corrected_labels_and_left_overs_are_seen_on_resuming(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_BLOCK", 4)
    real = preparing._joined
    monkeypatch.setattr(preparing, "_joined", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare_file(broken(), SPEC, tmp_path / "m.parquet")
    monkeypatch.setattr(preparing, "_joined", real)
    (tmp_path / ".m.parquet.parts" / ".000001.123.part.parquet").write_bytes(b"cut off")
    rows = broken().table.to_pylist()
    for row in rows:
        row["target"] = LABELS.onehot("sadness").tolist()
    import pyarrow as pa

    corrected = Manifest(broken().header, pa.Table.from_pylist(rows, schema=broken().table.schema))
    prepare_file(corrected, SPEC, tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").counts()["sadness"] == 19


def test_no_chip_at_all_writes_nothing(tmp_path):
    samples = [Sample(f"r{i}", b"no picture") for i in range(3)]
    nothing = make_manifest(samples, Header(source="drawn", labels=LABELS.names, framing=SPEC))
    with pytest.raises(DataError, match="no row gave a chip, so it was not written"):
        prepare_file(nothing, SPEC, tmp_path / "m.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_without_a_column_is_refused(tmp_path):
    whole = rows(3)
    Manifest(whole.header, whole.table.drop_columns(["subject"])).write(tmp_path / "m.parquet")
    with pytest.raises(DataError, match="its column subject is missing"):
        Manifest.read(tmp_path / "m.parquet")


def test_blocks_of_another_crop_are_not_reused(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_BLOCK", 4)
    folder = tmp_path / ".m.parquet.parts"
    folder.mkdir()
    (folder / "what.txt").write_text("other work")
    (folder / "000000.parquet").write_bytes(b"rubbish")
    assert prepare_file(broken(), SPEC, tmp_path / "m.parquet")[0] == 19


def test_a_submission_is_one_code_a_line(tmp_path):
    labels = label_set("affectnet8")
    probabilities = np.full((3, 8), 0.05, np.float32)
    for row, name in enumerate(("happiness", "neutral", "contempt")):
        probabilities[row, labels.index(name)] = 0.65
    probabilities[2, labels.index("anger")] = 0.06
    probabilities[2] /= probabilities[2].sum()
    told = Predictions(labels, ["a", "b", "c"], probabilities, np.full((3, 2), np.nan))
    write_submission(told, tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "3\n6\n0\n"
    with pytest.raises(OutputError, match="exists already"):
        write_submission(told, tmp_path / "s.csv")


def test_facts_and_votes_travel_with_the_rows(tmp_path):
    labels = ("happiness", "sadness")
    made = [
        Sample(f"r{i}", b"x", np.eye(2, dtype=np.float32)[i % 2], votes=np.array([i, 3]), facts={"age": str(i)})
        for i in range(3)
    ]
    one = make_manifest([*made, Sample("bare", b"x")], Header(source="one", labels=labels))
    assert one.facts == ["age"]
    assert one.votes().tolist() == [[0, 3], [1, 3], [2, 3], [0, 0]]
    one.write(tmp_path / "one.parquet")
    again = list(Manifest.read(tmp_path / "one.parquet"))
    assert again[1].facts == {"age": "1"}
    assert again[1].votes.tolist() == [1, 3]
    assert (again[3].votes, again[3].facts) == (None, {"age": None})
    other = make_manifest(
        [Sample("z", b"x", np.array([1, 0], np.float32))], Header(source="two", labels=("fear", "sadness"))
    )
    both = merge([one, other])
    assert both.table["source"].to_pylist() == ["one"] * 4 + ["two"]
    assert both.table["age"].to_pylist() == ["0", "1", "2", None, None]
    assert both.labels.names == ("happiness", "sadness", "fear")
    assert both.votes()[1].tolist() == [1, 3, 0]
    assert project(one, ("sadness", "happiness")).votes()[2].tolist() == [3, 2]
    with pytest.raises(DataError, match="may not be called 'box'"):
        make_manifest([Sample("r", b"x", facts={"box": "1"})], Header(source="one", labels=labels))
