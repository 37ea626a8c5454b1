"""The audit: every kind of defect planted and found, and nothing else; the known figures of the real FER2013."""

import cv2
import msgspec
import numpy as np
import pytest

from builders import drawn_face
from mien.data.audit import FLAWS, audit
from mien.data.clean import clean
from mien.data.manifest import Header, Sample, make_manifest
from mien.data.near import near_pairs
from mien.data.sources import read_source
from mien.errors import DataError
from mien.evaluation.predictions import Predictions
from mien.labels import LabelSet, label_set

LABELS = label_set("affectnet8")


def png(image) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def texture(seed: int, size: int = 64):
    """A picture unlike any other: smooth random blobs."""
    rough = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return cv2.resize(rough, (size, size), interpolation=cv2.INTER_CUBIC)


def row(name, image, label="neutral", **fields):
    data = image if isinstance(image, bytes) or hasattr(image, "is_file") else png(image)
    return Sample(name, data, **{"target": None if label is None else LABELS.onehot(label), **fields})


def table(*samples, root=None):
    return make_manifest(samples, Header(source="planted", labels=LABELS.names), root)


def found(manifest):
    """What an audit found, kind by kind, as ids."""
    report = audit(manifest)
    return report, {kind: [flaw.id for flaw in rows] for kind, rows in report.flaws.items()}


def test_clean_rows_have_nothing():
    names = list(LABELS)
    report, flaws = found(table(*(row(str(i), texture(i), names[i % 8], split="train") for i in range(40))))
    assert flaws == {}
    assert (report.identical, report.near, report.repeated, report.leaked, report.conflicting) == ((), (), {}, {}, {})
    assert report.sizes == {"64x64": 40}
    assert report.modes == {"PNG RGB": 40}
    assert report.imbalance == 1.0
    assert report.entropy is None
    assert report.label_errors is None


def test_each_flaw_is_found_and_no_other(tmp_path):
    soft = np.zeros(8, np.float32)
    soft[:2] = 0.5
    grey = np.full((64, 64, 3), 90, np.uint8)
    report, flaws = found(
        table(
            row("good", texture(0), box=(5, 5, 60, 60), landmarks=np.full((5, 2), 30.0, np.float32)),
            row("missing", tmp_path.relative_to(tmp_path) / "no.png"),
            row("broken", png(texture(1))[:200]),
            row("text", b"hello"),
            row("black", np.zeros((64, 64, 3), np.uint8)),
            row("grey", grey),
            row("away", texture(2), box=(70, 5, 90, 30)),
            row("empty", texture(3), box=(30, 5, 20, 30)),
            row("leaves", texture(4), box=(-3, 5, 50, 60)),
            row("points", texture(5), landmarks=np.array([[5, 5], [70, 5]] * 2 + [[1, 1]], np.float32)),
            row("soft", texture(6), target=soft),
            row("far", texture(7), valence=-2.0, arousal=-2.0),
            row("half", texture(8), valence=0.1),
            row("sour", texture(9), "happiness", valence=-0.4, arousal=0.1),
            row("calm", texture(10), "fear", valence=-0.2, arousal=-0.5),
            row("mild", texture(11), "happiness", valence=-0.15, arousal=-0.9),
            row("none", texture(12), None),
            root=tmp_path,
        )
    )
    assert flaws == {
        "missing": ["missing"],
        "undecodable": ["broken", "text"],
        "black": ["black"],
        "blank": ["grey"],
        "box-outside": ["away", "empty"],
        "box-leaves": ["leaves"],
        "landmarks-outside": ["points"],
        "no-majority": ["soft"],
        "affect-range": ["far", "half"],
        "affect-label": ["sour", "calm"],
    }
    assert set(flaws) == set(FLAWS)
    assert report.unlabelled == {"train": 1}
    assert report.entropy.mean == pytest.approx(1 / 16)
    assert sum(report.entropy.bins) == 16
    assert not report.identical
    assert not report.near
    assert "no such file" in report.flaws["missing"][0].reason
    assert report.flaws["landmarks-outside"][0].reason == "2 of 5 points in 64x64 pixels"


def test_copies_are_counted_within_and_across_splits():
    a, b, c = texture(1), texture(2), texture(3)
    webp = cv2.imencode(".webp", cv2.cvtColor(a, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    report = audit(
        table(
            row("t1", a, "fear"),
            row("t2", webp, "anger"),  # the same pixels in another form
            row("t3", b, "fear"),
            row("v1", b, "anger", split="validation"),
            row("v2", c, "fear", split="validation"),
            row("v3", c, "fear", split="validation"),
            row("e1", b, "fear", split="test"),
            row("t4", texture(4)),
        )
    )
    assert [group.ids for group in report.identical] == [("t1", "t2"), ("t3", "v1", "e1"), ("v2", "v3")]
    assert report.repeated == {"train": 2, "validation": 2}
    assert report.leaked == {"test in train": 1, "test in validation": 1, "validation in train": 1}
    assert report.conflicting == {"train": 2}
    assert [group.ids for group in report.conflicts] == [("t1", "t2"), ("t3", "v1", "e1")]
    assert report.near == ()


def test_an_unlabelled_copy_contradicts_nothing():
    report = audit(table(row("a", texture(1), "fear"), row("b", texture(1), None)))
    assert report.repeated == {"train": 2}
    assert report.conflicts == ()


def test_near_copies_are_found_and_other_pictures_are_not():
    first, second = texture(1), texture(2)
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(first, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
    report = audit(
        table(
            row("plain", first),
            row("jpeg", jpeg),
            row("large", cv2.resize(first, (128, 128), interpolation=cv2.INTER_CUBIC)),
            row("bright", cv2.convertScaleAbs(first, alpha=0.8, beta=30), split="validation"),
            row("mirror", np.ascontiguousarray(first[:, ::-1])),
            row("other", second),
            row("same", second, split="test"),
            *(row(f"far{i}", texture(100 + i)) for i in range(60)),
        )
    )
    assert report.near_groups == (("plain", "jpeg", "large", "bright", "mirror"),)
    assert report.near_leaked == {"validation in train": 1}
    assert report.leaked == {"test in train": 1}


def test_near_copies_by_every_pair():
    """The search by pieces finds exactly the pairs that comparing all with all finds."""
    from mien.data import near as room

    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 300, np.uint64)
    for i in range(60):  # up to seven bits turned
        turned = rng.choice(64, i % 8, replace=False)
        hashes[200 + i] = hashes[i] ^ np.uint64(sum(1 << int(bit) for bit in turned))
    wanted = {
        (i, j) for i in range(300) for j in range(i + 1, 300) if int(hashes[i] ^ hashes[j]).bit_count() <= room._BITS
    }
    got = {(min(x, y), max(x, y)) for a, b in room._close(hashes) for x, y in zip(a.tolist(), b.tolist(), strict=True)}
    assert got == wanted
    assert len(wanted) >= 45


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tiny_manifests_behave(count):
    report = audit(table(*(row(str(i), drawn_face(seed=i), "fear") for i in range(count))))
    assert report.rows == count
    assert report.imbalance == (1.0 if count else None)
    assert msgspec.json.decode(msgspec.json.encode(report), type=type(report)) == report
    assert report.summary()[0] == ("rows", str(count))


def test_progress_sees_every_row():
    seen = []
    audit(
        table(*(row(str(i), texture(i)) for i in range(3))),
        progress=lambda rows: (seen.append(r.id) or r for r in rows),
    )
    assert seen == ["0", "1", "2"]


TWO = LabelSet(("x", "y"))


def told(given, probabilities):
    """A manifest of two labels with these, and predictions for it."""
    samples = [Sample(str(i), png(texture(i)), TWO.onehot(name)) for i, name in enumerate(given)]
    manifest = make_manifest(samples, Header(source="two", labels=TWO.names))
    p = np.array([[1 - y, y] for y in probabilities])
    return manifest, Predictions(TWO, manifest.ids, p, np.full((len(p), 2), np.nan))


def test_label_errors_by_hand():
    # thresholds: x (0.9 + 0.8 + 0.1) / 3 = 0.6, y (0.7 + 0.9 + 0.35) / 3 = 0.65
    manifest, answers = told("xxxyyy", [0.1, 0.2, 0.9, 0.7, 0.9, 0.35])
    errors = audit(manifest, answers).label_errors
    assert [(e.id, e.given, e.likely) for e in errors] == [("2", "x", "y"), ("5", "y", "x")]
    assert [e.confidence for e in errors] == pytest.approx([0.1, 0.35])


def test_label_errors_agree_with_cleanlab():
    find = pytest.importorskip("cleanlab.filter").find_label_issues
    from mien.data.audit import _confident

    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 2000)
    given = np.where(rng.random(2000) < 0.15, rng.integers(0, 5, 2000), true)
    probabilities = rng.dirichlet(np.ones(5) * 0.3, 2000) * 0.5 + np.eye(5)[true] * 0.5
    likely, confidence = _confident(given, probabilities)
    wrong = np.flatnonzero((likely >= 0) & (likely != given))
    ranked = wrong[np.argsort(confidence[wrong])]
    theirs = find(given, probabilities, filter_by="confident_learning", return_indices_ranked_by="self_confidence")
    assert ranked.tolist() == theirs.tolist()


def test_predictions_of_other_rows_or_labels_are_refused():
    manifest, answers = told("xy", [0.1, 0.9])
    strange = Predictions(TWO, ["0", "9"], answers.probabilities, answers.affect)
    with pytest.raises(DataError, match="row 9 is not in the manifest"):
        audit(manifest, strange)
    other = Predictions(LabelSet(("u", "v")), manifest.ids, answers.probabilities, answers.affect)
    with pytest.raises(DataError, match="no label in common"):
        audit(manifest, other)


def test_the_real_fer2013_has_its_known_defects_and_is_cleaned_of_them(test_data):
    rows = read_source("fer2013", test_data / "fer2013")
    report = audit(rows)
    assert report.rows == 32298
    assert report.repeated == {"train": 2271, "validation": 52}
    assert report.leaked == {"validation in train": 280}
    assert report.conflicting == {"train": 107, "validation": 2}
    assert {kind: len(rows) for kind, rows in report.flaws.items()} == {"black": 12, "blank": 1}
    assert report.sizes == {"48x48": 32298}
    left = clean(rows, ["blank", "conflicts", "leaks", "duplicates"], report).manifest
    assert {name: len(left.split(name)) for name in ("train", "validation")} == {"train": 27169, "validation": 3561}
    bad = {name for group in report.identical for name in group.ids} | {flaw.id for flaw in report.flaws["black"]}
    again = audit(left.take([row for row, name in enumerate(left.ids) if name in bad]))
    assert again.rows > 1000
    assert (again.identical, again.flaws) == ((), {})


def faces(*rows):
    """Rows of one picture: (id, label, what else is known)."""
    return [row(name, texture(1), label, **fields) for name, label, fields in rows]


LEFT, RIGHT = {"box": (0, 0, 30, 60)}, {"box": (34, 0, 64, 60)}


def test_faces_of_one_picture_are_no_copies_of_each_other():
    report = audit(
        table(*faces(("a", "fear", LEFT), ("b", "anger", RIGHT), ("c", "anger", {})), row("far", texture(2)))
    )
    assert (report.repeated, report.conflicting, report.conflicts, report.same_faces) == ({}, {}, (), ())
    assert report.leaked == {}
    report = audit(
        table(*faces(("a", "fear", LEFT), ("b", "anger", RIGHT), ("c", "fear", LEFT), ("d", "sadness", RIGHT)))
    )
    assert [group.ids for group in report.same_faces] == [("a", "c"), ("b", "d")]
    assert (report.repeated, report.conflicting) == ({"train": 4}, {"train": 2})
    assert [group.ids for group in report.conflicts] == [("b", "d")]


def test_a_picture_leaks_whatever_the_box():
    report = audit(table(*faces(("a", "fear", LEFT), ("b", "anger", {**RIGHT, "split": "test"}))))
    assert report.leaked == {"test in train": 1}
    assert [group.ids for group in report.identical] == [("a", "b")]
    assert report.conflicts == ()


def test_without_boxes_landmarks_tell_faces_apart():
    one, other = ({"landmarks": np.full((5, 2), at, np.float32)} for at in (10, 50))
    report = audit(table(*faces(("a", "fear", one), ("b", "anger", other), ("c", "fear", one))))
    assert [group.ids for group in report.same_faces] == [("a", "c")]
    assert report.conflicts == ()


def hulls(*images, colour=1.0):
    """Chips with a mask: about a sixth of each is a face, at the same place; the rest is black."""
    mask = cv2.fillConvexPoly(np.zeros((64, 64), np.uint8), np.array([[18, 20], [46, 20], [42, 44], [22, 44]]), 1)
    return [np.clip(image * colour, 12, 255).astype(np.uint8) * mask[..., None] for image in images]


def test_chips_with_a_mask_are_compared_inside_it():
    from mien.spec import CropSpec

    header = Header(source="planted", labels=LABELS.names, crop=CropSpec(width=64, height=64, mask="hull"))
    people = [cv2.GaussianBlur(texture(i), (0, 0), 2) // 6 + 150 for i in range(150)]
    [jpeg] = hulls(people[0])
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(jpeg, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    mirrored, [dim] = hulls(people[1])[0][:, ::-1].copy(), hulls(people[2], colour=0.8)
    samples = [row(f"p{i}", chip) for i, chip in enumerate(hulls(*people))]
    copies = [row("jpeg", jpeg), row("mirror", mirrored), row("dim", dim)]
    report = audit(make_manifest([*samples, *copies], header))
    assert report.near_groups == (("p0", "jpeg"), ("p1", "mirror"), ("p2", "dim"))
    blank = [row(f"b{i}", chip // 40) for i, chip in enumerate(hulls(*people[:20]))]
    assert audit(make_manifest(blank, header)).near_groups == ()  # too little is seen of them


def test_a_picture_that_is_its_own_mirror_image_has_no_near_copy():
    half = np.random.default_rng(0).integers(0, 255, (1, 16, 8)).astype(np.uint8)
    assert near_pairs(np.concatenate([half, half[..., ::-1]], axis=2)).shape == (0, 2)
