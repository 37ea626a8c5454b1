"""Manifests, sources, preparing, holding out: on look-alikes, and on the real FER2013 where it is."""

import csv
import math
from hashlib import sha256
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import drawn_face
from mien.data import manifest as manifests
from mien.data.manifest import Header, Manifest, Sample, join_manifests, make_manifest
from mien.data.prepare import chips, prepare
from mien.data.sources import SOURCES, read_source
from mien.data.sources.fer2013 import FRAMING
from mien.data.sources.ferplus import targets
from mien.data.split import hold_out
from mien.errors import ConfigError, DataError, DatasetNotFound
from mien.evaluation.predictions import Predictions
from mien.faces import Face
from mien.spec import CropSpec
from mien.vision.image import read_image

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def look_alike(count: int = 30):
    """(usage, emotion, grey 48x48, votes) rows in the form of FER2013 and FER+."""
    rng = np.random.default_rng(0)
    for i in range(count):
        usage = "PublicTest" if i % 5 == 4 else "Training"
        grey = cv2.cvtColor(drawn_face(48, mouth=rng.uniform(-1, 1), seed=i), cv2.COLOR_RGB2GRAY)
        votes = np.zeros(10, int)
        votes[i % 8], votes[(i + 1) % 8], votes[8] = 6, 3, 1
        yield usage, i % 7, grey, votes


def write_csv(folder, header="emotion,pixels,Usage"):
    with (folder / "fer2013.csv").open("w", newline="") as file:
        file.write(header + "\n")
        for usage, emotion, grey, _ in look_alike():
            file.write(f"{emotion},{' '.join(map(str, grey.ravel()))},{usage}\n")
    with (folder / "fer2013new.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("Usage", "Image name", *VOTES))
        for number, (usage, _, _, votes) in enumerate(look_alike()):
            out.writerow((usage, f"fer{number + 3:07}.png", *votes))


def write_parquet(folder):
    rows = [
        {
            "image": {"bytes": cv2.imencode(".png", grey)[1].tobytes(), "path": None},
            "row": number,
            "usage": usage,
            "emotion": emotion,
            **{name: int(v) for name, v in zip(VOTES, votes, strict=True)},
        }
        for number, (usage, emotion, grey, votes) in enumerate(look_alike())
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "all.parquet")


@pytest.fixture
def forms(tmp_path):
    """Two folders with the same look-alike rows: as CSV and as Parquet."""
    for name, write in (("csv", write_csv), ("parquet", write_parquet)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    return tmp_path / "csv", tmp_path / "parquet"


@pytest.mark.parametrize("source", ["fer2013", "ferplus"])
def test_every_form_gives_the_same_rows(source, forms):
    a, b = (read_source(source, form) for form in forms)
    assert a.ids == b.ids
    assert np.array_equal(a.targets(), b.targets())
    assert all(np.array_equal(read_image(x.image), read_image(y.image)) for x, y in zip(a, b, strict=True))


def test_codes_become_names(forms):
    first = next(iter(read_source("fer2013", forms[0])))
    assert SOURCES["fer2013"].card.labels[int(first.target.argmax())] == "anger"


def test_the_three_rules_on_hand_worked_votes():
    votes = np.array(
        [
            [5, 3, 0, 1, 0, 0, 0, 0, 1, 0],  # neutral 5 of 8 after single votes are dropped
            [4, 4, 0, 0, 0, 0, 0, 0, 2, 0],  # a tie: no majority
            [2, 0, 0, 0, 0, 0, 0, 0, 8, 0],  # unknown
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],  # not a face
            [0, 0, 0, 0, 0, 0, 0, 6, 4, 0],  # contempt
        ]
    )
    hard, kept = targets(votes, "majority")
    assert kept.tolist() == [True, False, False, False, True]
    assert hard[[0, 4]].argmax(axis=1).tolist() == [0, 7]
    soft, kept = targets(votes, "distribution")
    assert kept.tolist() == [True, True, False, False, True]
    assert np.allclose(soft[0], [5 / 8, 3 / 8, 0, 0, 0, 0, 0, 0])
    assert targets(votes, "plain")[1].tolist() == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace("0,", "9,", 1), r"fer2013\.csv, row 0: emotion '9'; expected a code from 0 to 6"),
        (lambda text: text.replace("Training", "Trainning", 1), "row 0: usage 'Trainning'"),
        (lambda text: text.replace(" ", " 300 ", 1), "row 0: pixels: not numbers from 0 to 255"),
        (lambda text: text.replace(" ", " 30 ", 1), "row 0: 2305 pixels; expected 2304"),
        (lambda text: text.replace("emotion", "emo", 1), "the header is emo,pixels,Usage"),
        (lambda text: text.split("\n")[0], "no FER2013 here"),
    ],
)
def test_a_spoilt_csv_names_file_and_row(spoil, message, forms):
    path = forms[0] / "fer2013.csv"
    path.write_text(spoil(path.read_text()))
    with pytest.raises(DataError, match=message):
        read_source("fer2013", forms[0])


def test_votes_of_another_order_are_refused(forms):
    path = forms[0] / "fer2013new.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[5:], *lines[1:5]]))
    with pytest.raises(DataError, match="rows match by order"):
        read_source("ferplus", forms[0])


def test_a_missing_dataset_says_what_it_expects(tmp_path):
    with pytest.raises(DatasetNotFound, match="expects fer2013.csv"):
        read_source("fer2013", tmp_path / "nowhere")
    with pytest.raises(DataError, match="did you mean 'ferplus'"):
        read_source("ferpluss", tmp_path)


def test_manifests_survive_writing(forms, tmp_path):
    manifest = read_source("ferplus", forms[1], "distribution")
    manifest.write(tmp_path / "m.parquet")
    back = Manifest.read(tmp_path / "m.parquet")
    assert back.header == manifest.header
    assert back.fingerprint() == manifest.fingerprint()
    with pytest.raises(DataError, match="without mien's header"):
        Manifest.read(forms[1] / "all.parquet")


def test_large_pictures_are_kept_in_small_parts(tmp_path, monkeypatch):
    """What Arrow cannot hold is one chunk, or one row group, of more than 2 GiB: parts end at a number of bytes too."""
    monkeypatch.setattr(manifests, "_PART", 4)
    monkeypatch.setattr(manifests, "_BYTES", 100)
    sizes = [10, 10, 10, 10, 10, 60, 40, 30, 200, 1]
    samples = [Sample(str(i), bytes([i]) * size, split="test" if i % 3 else "train") for i, size in enumerate(sizes)]
    manifest = make_manifest([*samples, Sample("path", Path("a.jpg"))], Header(source="s", labels=("x", "y")))
    parts = [4, 2, 2, 1, 2]
    assert [len(batch) for batch in manifest.table.to_batches()] == parts
    manifest.write(tmp_path / "a.parquet")
    assert groups(tmp_path / "a.parquet") == parts
    assert [s.image for s in Manifest.read(tmp_path / "a.parquet")][:-1] == [s.image for s in samples]
    monkeypatch.setattr(manifests, "_BYTES", 60)
    join_manifests([tmp_path / "a.parquet"] * 2, tmp_path / "b.parquet")
    assert groups(tmp_path / "b.parquet") == [4, 1, 1, 1, 1, 1, 2] * 2


def groups(path) -> list[int]:
    """The rows of each row group of a file."""
    told = pq.read_metadata(path)
    return [told.row_group(i).num_rows for i in range(told.num_row_groups)]


@pytest.mark.parametrize("rows", [[1, 4, 9], [9, 4, 4, 0, 11], list(range(11, -1, -1)), []], ids=str)
def test_rows_are_taken_chunk_by_chunk(rows, monkeypatch):
    """The rows that Arrow's own way gives, which ends beyond 2 GiB."""
    monkeypatch.setattr(manifests, "_PART", 5)
    target = np.array([0, 1], np.float32)
    samples = [Sample(str(i), str(i).encode(), target if i % 3 else None, valence=i / 12, arousal=0) for i in range(12)]
    manifest = make_manifest(samples, Header(source="s", labels=("x", "y")))
    assert manifest.table["image"].num_chunks == 3
    monkeypatch.setattr(manifests, "_PART", 3)
    assert manifest.take(rows).table.equals(manifest.table.take(pa.array(rows, pa.int64())), check_metadata=True)
    for wrong in (-1, 12):
        with pytest.raises(IndexError, match="of a table of 12"):
            manifest.take([wrong])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": np.array([1.0, 1.0])}, "no distribution"),
        ({"target": np.array([math.nan, 1.0])}, "no distribution"),
        ({"target": [1, 0]}, "target is of type list; give an array"),
        ({"image": "a.jpg"}, "image is of type str; give encoded bytes"),
        ({"box": (1.0, 2.0, 3.0)}, "a box of 3 numbers"),
        ({"facts": {"age": 3}}, "age is of type int; give a text"),
        ({"id": 7}, "id is of type int; give a text"),
    ],
)
def test_a_sample_that_means_nothing_is_refused(given, message):
    sample = Sample(**{"id": "r0", "image": b"x", **given})
    with pytest.raises(DataError, match=rf"^row 0 \(\w+\): .*{message}"):
        make_manifest([sample], Header(source="mine", labels=("a", "b")))


def test_a_manifest_is_shown_in_one_line():
    manifest = make_manifest([Sample("r0", bytes(999), facts={"age": "3"})], Header(source="mine", labels=("a", "b")))
    assert repr(manifest) == "Manifest(mine: 1 rows; labels: a, b; facts: age)"
    assert len(repr(next(iter(manifest)))) < 300


def test_a_mask_takes_the_rows_where_it_is_true():
    manifest = make_manifest([Sample(f"r{i}", b"x") for i in range(4)], Header(source="mine", labels=("a", "b")))
    told = Predictions(manifest.labels, manifest.ids, np.full((4, 2), 0.5), np.zeros((4, 2)))
    mask = np.array([False, True, False, True])
    assert manifest.take(mask).ids == manifest.take(mask.tolist()).ids == told.take(mask).ids == ["r1", "r3"]
    assert len(manifest.take([])) == len(told.take([]).ids) == 0
    for wrong in (mask[:3], [1.7], ["r1"], 1, [4]):
        for table in (manifest, told):
            with pytest.raises(IndexError, match="a mask of shape|give whole numbers, or a mask|rows 4 to 4"):
                table.take(wrong)


@pytest.mark.parametrize("rows", [[7], [7, 3]], ids=str)
def test_rows_of_more_than_two_gib_can_be_taken(rows):
    """One picture stands in all rows: a small file's worth of memory, were its chunks not joined."""
    one = make_manifest([Sample("a", bytes(1 << 22))], Header(source="s", labels=("x", "y")))
    many = Manifest(one.header, pa.concat_tables([one.table] * 520))
    assert many.table.nbytes > 1 << 31
    taken = many.take(rows)
    assert [len(sample.image) for sample in taken] == [1 << 22] * len(rows)


def test_the_same_data_has_the_same_fingerprint_wherever_it_lies(tmp_path, monkeypatch):
    samples = [Sample(str(i), Path(f"faces/{i}.jpg")) for i in range(40)]
    manifest = make_manifest(samples, Header(source="s", labels=("x", "y")), tmp_path / "pictures")
    manifest.write(tmp_path / "a.parquet")
    monkeypatch.chdir(tmp_path)
    absolute, relative = Manifest.read(tmp_path / "a.parquet"), Manifest.read("a.parquet")
    relative.write(tmp_path / "deeper.parquet")
    (tmp_path / "below").mkdir()
    relative.write(tmp_path / "below" / "b.parquet")
    same = [absolute, relative, Manifest.read("deeper.parquet"), Manifest.read("below/b.parquet")]
    assert {one.fingerprint() for one in same} == {manifest.fingerprint()}
    held = hold_out(manifest, 0.3)[1].ids
    assert all(hold_out(one, 0.3)[1].ids == held for one in same)


@pytest.mark.parametrize("other", [{"valence": 0.5}, {"arousal": 0.5}, {"split": "test"}, {"id": "b"}, {"image": b"y"}])
def test_other_data_has_another_fingerprint(other):
    header = Header(source="s", labels=("x", "y"))
    words = [
        make_manifest([Sample(**{"id": "a", "image": b"x", **more})], header).fingerprint() for more in ({}, other)
    ]
    assert words[0] != words[1]
    # The word that models' specs have for such rows: a run is known by it.
    assert words[0] == "e5d9e7fffb79906ba472eaa81ba9a235eb4fc894ddb213bfbf06da3d27544077"


def test_a_repeated_id_is_refused():
    samples = [Sample("a", b"x"), Sample("a", b"y")]
    with pytest.raises(DataError, match=r"row 1 \(a\): the id stands on an earlier row"):
        make_manifest(samples, Header(source="s", labels=("x", "y")))


def test_cropped_sources_keep_their_pixels(forms):
    manifest = read_source("fer2013", forms[1])
    done = prepare(manifest, FRAMING)
    assert not done.missed
    pictures = chips(done.chips)
    assert all(np.array_equal(c[..., 0], read_image(s.image)[..., 0]) for c, s in zip(pictures, manifest, strict=True))


def test_another_framing_is_refused(forms):
    with pytest.raises(ConfigError, match=r"crop\.align: fer2013's pictures are already cropped"):
        prepare(read_source("fer2013", forms[1]), CropSpec(width=48, height=48))


def test_pictures_that_are_cropped_may_be_cut_more_tightly(forms):
    manifest = read_source("fer2013", forms[1])
    framing = manifest.header.framing
    points = tuple(((x - 0.125) / 0.75, y) for x, y in framing.points)
    tight = msgspec.structs.replace(framing, width=36, height=48, points=points)
    chips = prepare(manifest, tight, None).chips
    whole = read_image(next(iter(manifest)).image)
    assert np.array_equal(read_image(next(iter(chips)).image), whole[:, 6:42])
    wide = msgspec.structs.replace(framing, points=tuple((0.1 + 0.8 * x, y) for x, y in framing.points))
    with pytest.raises(ConfigError, match=r"crop\.points: .*shows more than there is"):
        prepare(manifest, wide, None)


def test_what_gives_no_chip_is_listed():
    good = cv2.imencode(".png", drawn_face())[1].tobytes()
    samples = [Sample("a", good), Sample("b", b"broken"), Sample("c", good, box=(0, 0, 96, 96))]
    manifest = make_manifest(samples, Header(source="s", labels=("x", "y")))
    done = prepare(manifest, CropSpec(width=32, height=32), detector=lambda image: [])  # noqa: ARG005
    assert done.chips.ids == ["c"]
    assert [name for name, _ in done.missed] == ["a", "b"]
    found = prepare(manifest, CropSpec(width=32, height=32), detector=lambda image: [Face((0, 0, 96, 96))])  # noqa: ARG005
    assert found.chips.ids == ["a", "c"]


def test_holding_out_keeps_copies_together_whatever_the_order():
    samples = [Sample(str(i), bytes([i % 50])) for i in range(200)]
    manifest = make_manifest(samples, Header(source="s", labels=("x", "y")))
    rest, held = hold_out(manifest, 0.3, fold=1)
    assert len(rest) + len(held) == 200
    assert not {s.image for s in rest} & {s.image for s in held}
    assert set(hold_out(manifest.take(range(199, -1, -1)), 0.3, fold=1)[1].ids) == set(held.ids)
    for fold in (0, 1):  # two copies of one picture lie in the same fold
        with pytest.raises(DataError, match="too few"):
            hold_out(manifest.take([0, 50]), 0.5, fold)


def test_copies_of_different_subjects_are_held_out_together():
    """Picture i % 90 of subject i // 4 (every ninth row has none): pictures tie subjects together."""
    samples = [Sample(str(i), f"p{i % 90}".encode(), subject=f"S{i // 4}" if i % 9 else None) for i in range(100)]
    manifest = make_manifest(samples, Header(source="s", labels=("x", "y")))
    whole = []
    for fold in range(4):
        rest, held = hold_out(manifest, 0.25, fold)
        assert not {s.image for s in rest} & {s.image for s in held}
        assert not {s.subject for s in rest if s.subject} & {s.subject for s in held if s.subject}
        assert set(hold_out(manifest.take(range(99, -1, -1)), 0.25, fold)[1].ids) == set(held.ids)
        whole += held.ids
    assert sorted(whole, key=int) == manifest.ids


def test_joined_groups_lie_evenly_in_the_folds():
    samples = [Sample(str(i), str(i // 10).encode(), subject=f"S{i}") for i in range(4000)]
    manifest = make_manifest(samples, Header(source="s", labels=("x", "y")))
    shares = [len(hold_out(manifest, 0.25, fold)[1]) / 4000 for fold in range(4)]
    assert max(shares) - min(shares) < 0.1


@pytest.mark.parametrize(
    ("subject", "known"),
    [
        (lambda _: None, [1, 6, 23, 26, 31, 33, 43]),
        (lambda i: f"S{i % 50 // 2}", [10, 11, 14, 15, 16, 17, 20, 21, 42, 43, 44, 45, 48, 49]),
    ],
    ids=["no subjects", "each picture of one subject"],
)
def test_the_rows_that_trained_models_held_out_stay_held_out(subject, known):
    samples = [Sample(str(i), f"p{i % 50}".encode(), subject=subject(i)) for i in range(200)]
    manifest = make_manifest(samples, Header(source="s", labels=("x", "y")))
    words = [(sample.subject or sample.image.decode()).encode() for sample in samples]
    places = [int(sha256(bytes(8) + word).hexdigest()[:12], 16) / 16**12 for word in words]
    for fold in range(5):
        wanted = [s.id for s, place in zip(samples, places, strict=True) if int(place / 0.2) == fold]
        assert hold_out(manifest, 0.2, fold)[1].ids == wanted
    assert [int(name) for name in hold_out(manifest, 0.2)[1].ids[: len(known)]] == known


def test_folds_share_no_row_and_together_are_all():
    manifest = make_manifest([Sample(str(i), str(i).encode()) for i in range(400)], Header(source="s", labels=("x",)))
    held = [set(hold_out(manifest, 0.25, fold)[1].ids) for fold in range(4)]
    assert sum(map(len, held)) == 400
    assert set.union(*held) == set(manifest.ids)
    assert min(map(len, held)) > 60


def test_the_real_fer2013_has_its_known_counts(test_data):
    for name in ("fer2013", "ferplus"):
        manifest = read_source(name, test_data / "fer2013")
        for split in ("train", "validation"):
            assert manifest.split(split).counts() == SOURCES[name].card.counts[split], (name, split)
