"""Groups of rows: what they are, how far they lie apart, and when that says nothing."""

import cv2
import numpy as np
import pytest
from scipy import stats

from mien.data.manifest import Header, Sample, make_manifest
from mien.errors import DataError
from mien.evaluation.predictions import Predictions
from mien.evaluation.slices import column, grouped, slice_rows
from mien.labels import LabelSet
from mien.report.tables import slice_words

LABELS = LabelSet(("happiness", "sadness"))


def png(level: int, size: int = 24) -> bytes:
    return cv2.imencode(".png", np.full((size, size, 3), level, np.uint8))[1].tobytes()


def a_manifest(groups, subjects=None, labels=None):
    samples = []
    for i, group in enumerate(groups):
        label = LABELS.names[i % 2 if labels is None else labels[i]]
        subject = None if subjects is None else subjects[i]
        samples.append(Sample(f"r{i}", png(i % 250), LABELS.onehot(label), subject=subject, facts={"gender": group}))
    return make_manifest(samples, Header(source="drawn", labels=LABELS.names))


def told(manifest, right):
    """Predictions that are right where `right` says so."""
    truth = manifest.targets().argmax(axis=1)
    said = np.where(right, truth, 1 - truth)
    return Predictions(LABELS, manifest.ids, np.eye(2)[said] * 0.8 + 0.1, np.full((len(said), 2), np.nan))


def test_a_gap_between_groups_is_found_and_tested():
    groups = ["woman"] * 100 + ["man"] * 100
    right = np.array([True] * 90 + [False] * 10 + [True] * 60 + [False] * 40)
    manifest = a_manifest(groups)
    one = slice_rows(told(manifest, right), manifest, ["gender"], draws=50)[0]
    assert [(part.name, part.rows, part.accuracy) for part in one.groups] == [("man", 100, 0.6), ("woman", 100, 0.9)]
    assert one.gap.best == "woman"
    assert abs(one.gap.difference - 0.3) < 1e-9
    low, high = one.gap.interval
    assert 0.15 < low < 0.3 < high < 0.45
    assert one.gap.p < 0.001
    assert one.gap.real
    oracle = stats.chi2_contingency([[90, 10], [60, 40]], correction=False).pvalue
    mild = slice_rows(told(manifest, np.r_[right[:100], [True] * 82, [False] * 18]), manifest, ["gender"], draws=20)[0]
    wanted = stats.chi2_contingency([[90, 10], [82, 18]], correction=False).pvalue
    assert abs(mild.gap.p - wanted) < 0.08
    assert oracle < 0.001


def test_small_and_unknown_groups_say_nothing():
    groups = ["a"] * 40 + ["b"] * 40 + ["c"] * 29 + [None] * 40
    right = np.array([True] * 80 + [False] * 69)
    manifest = a_manifest(groups)
    one = slice_rows(told(manifest, right), manifest, ["gender"], draws=20)[0]
    assert [(part.name, part.enough) for part in one.groups] == [
        ("a", True),
        ("b", True),
        ("c", False),
        ("not known", True),
    ]
    assert one.gap.difference == 0
    assert one.gap.p == 1
    alone = a_manifest(["a"] * 40 + ["b"] * 5)
    assert slice_rows(told(alone, np.ones(45, bool)), alone, ["gender"], draws=20)[0].gap is None


def test_expected_accuracy_is_what_the_mix_of_labels_gives():
    """Sadness is never read rightly; one group holds mostly sad faces, so its low accuracy is what its labels give."""
    groups = ["a"] * 50 + ["b"] * 50
    labels = [0] * 40 + [1] * 10 + [0] * 10 + [1] * 40
    manifest = a_manifest(groups, labels=labels)
    one = slice_rows(told(manifest, np.array(labels) == 0), manifest, ["gender"], draws=20)[0]
    assert [part.accuracy for part in one.groups] == [0.8, 0.2]
    assert [part.expected for part in one.groups] == [0.8, 0.2]
    assert [part.macro_recall for part in one.groups] == [0.5, 0.5]


def test_subjects_are_drawn_whole():
    """Few subjects a group: ten rows of one subject say no more than one."""
    subjects = [f"S{i // 20}" for i in range(120)]
    groups = ["a"] * 60 + ["b"] * 60
    right = np.repeat([1, 1, 1, 1, 0, 0], 20).astype(bool)
    with_subjects, without = a_manifest(groups, subjects), a_manifest(groups)
    known = slice_rows(told(with_subjects, right), with_subjects, ["gender"], draws=200)[0]
    blind = slice_rows(told(without, right), without, ["gender"], draws=200)[0]
    assert blind.gap.real
    assert not known.gap.real
    widths = [one.groups[1].interval[1] - one.groups[1].interval[0] for one in (known, blind)]
    assert widths[0] > 2 * widths[1]


def test_several_columns_are_corrected_for():
    manifest = a_manifest(["a"] * 60 + ["b"] * 60)
    right = np.array([True] * 55 + [False] * 5 + [True] * 46 + [False] * 14)
    alone = slice_rows(told(manifest, right), manifest, ["gender"], draws=20)[0]
    among = {
        one.column: one
        for one in slice_rows(told(manifest, right), manifest, ["gender", "label", "brightness"], draws=20)
    }
    assert among["gender"].gap.p == alone.gap.p
    assert among["gender"].gap.adjusted >= alone.gap.adjusted
    assert among["brightness"].unit


def test_gaps_are_between_groups_that_have_labels_enough():
    """Rows with affect alone say nothing of accuracy."""
    groups = ["a"] * 40 + ["b"] * 40 + ["c"] * 40
    rng = np.random.default_rng(0)
    affect = [tuple(row) for row in rng.uniform(-1, 1, (120, 2))]
    samples = [
        Sample(
            f"r{i}",
            png(i),
            LABELS.onehot("happiness") if i < 80 or i > 117 else None,
            valence=affect[i][0],
            arousal=affect[i][1],
            facts={"gender": group},
        )
        for i, group in enumerate(groups)
    ]
    manifest = make_manifest(samples, Header(source="drawn", labels=LABELS.names))
    said = np.tile([0.9, 0.1], (120, 1))
    said[118:] = [0.1, 0.9]
    predictions = Predictions(LABELS, manifest.ids, said, np.array(affect) * 0.9)
    one = slice_rows(predictions, manifest, ["gender"], draws=10)[0]
    assert [(part.name, part.labelled, part.enough) for part in one.groups] == [
        ("a", 40, True),
        ("b", 40, True),
        ("c", 2, True),
    ]
    assert one.gap.difference == 0
    blind = make_manifest(
        [
            Sample(f"r{i}", png(i), valence=affect[i][0], arousal=affect[i][1], facts={"gender": groups[i]})
            for i in range(120)
        ],
        Header(source="drawn", labels=LABELS.names),
    )
    alone = slice_rows(predictions, blind, ["gender"], draws=10)[0]
    assert alone.gap is None
    assert slice_words(alone) == "No row has a label: gaps are looked for in accuracy alone."


def test_large_numbers_become_quarters_too():
    rows = grouped([str(1_700_000_000 + i) for i in range(40)])
    assert [len(part) for part in rows.values()] == [10, 10, 10, 10]
    assert next(iter(rows)) == "1700000000 to 1700000009"


def test_numbers_become_quarters_and_words_groups():
    rows = grouped([str(i / 10) for i in range(40)] + [None])
    assert [len(part) for part in rows.values()] == [10, 10, 10, 10, 1]
    assert next(iter(rows)) == "0 to 0.9"
    assert list(grouped(["1", "2", "1", ""])) == ["1", "2", "not known"]
    assert list(grouped([*"012345678", "inf"])) == [*"012345678", "inf"]
    assert list(grouped(np.array([3.0, 3.0, 3.0]))) == ["3"]


def test_what_is_measured():
    manifest = a_manifest(["a"] * 4)
    assert column(manifest, "brightness").tolist() == [0, 1, 2, 3]
    assert column(manifest, "size").tolist() == [24] * 4
    assert column(manifest, "sharpness").tolist() == [0] * 4
    assert column(manifest, "contrast").tolist() == [0] * 4
    leaning = np.array([[8, 10], [16, 18], [12, 16], [10, 20], [14, 22]], np.float32)
    sample = Sample("x", png(9), LABELS.onehot("sadness"), landmarks=leaning, box=(0.0, 0.0, 12.0, 9.0))
    one = make_manifest([sample, Sample("y", png(9))], Header(source="drawn", labels=LABELS.names))
    assert abs(column(one, "roll")[0] - 45) < 1e-4
    assert abs(column(one, "turn")[0] - 0.125) < 1e-6
    assert column(one, "size").tolist() == [9, 24]
    assert np.isnan(column(one, "roll")[1])


@pytest.mark.parametrize(
    ("name", "why"),
    [("gendre", "did you mean 'gender'"), ("roll", "no row has landmarks"), ("subject", "not known for any row")],
)
def test_a_column_that_is_not_there_is_told(name, why):
    with pytest.raises(DataError, match=why):
        column(a_manifest(["a"] * 3), name)
