"""Ensembles and test-time averaging, against hand-worked cases and brute force."""

import numpy as np
import pyarrow as pa
import pytest

from mien.data.manifest import Manifest
from mien.data.prepare import prepare
from mien.data.synthetic import FRAMING, synthetic
from mien.errors import ConfigError, DataError
from mien.evaluation.averaging import averaging_kinds, view_count, views
from mien.evaluation.ensemble import averaged, cross_weighted, fitted_weights, greedy_weights, mean_answer, stacked
from mien.evaluation.predictions import Predictions, predict
from mien.labels import LabelSet


def answers(members: int = 3, rows: int = 300, classes: int = 4, seed: int = 0):
    """(members, n, c) answers of rising worth, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    logits = rng.normal(0, 1.5, (members, rows, classes))
    logits[:, np.arange(rows), truth] += 1.5 * np.arange(members)[:, None] / max(1, members - 1)
    p = np.exp(logits)
    return p / p.sum(axis=2, keepdims=True), truth


def loss(p, truth) -> float:
    return float(-np.log(p[np.arange(len(truth)), truth]).mean())


def grid(steps: int = 20):
    """All weights of three members, of sum 1, on a grid."""
    for i in range(steps + 1):
        for j in range(steps + 1 - i):
            yield np.array([i, j, steps - i - j]) / steps


def test_the_mean_of_logits_is_the_softmax_of_their_mean():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 5, 4))
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    share = np.array([0.3, 0.7])
    wanted = np.exp(np.tensordot(share, logits, 1))
    assert np.allclose(mean_answer(p, share, logits=True), wanted / wanted.sum(1, keepdims=True), atol=1e-12)
    assert np.isfinite(mean_answer(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), share, logits=True)).all()


@pytest.mark.parametrize("logits", [False, True])
def test_no_weights_on_a_grid_do_better_than_the_fitted_ones(logits):
    p, truth = answers()
    found = fitted_weights(p, truth, logits)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    best = min(loss(mean_answer(p, share, logits), truth) for share in grid())
    assert loss(mean_answer(p, found, logits), truth) <= best + 1e-6


@pytest.mark.parametrize("logits", [False, True])
def test_greedy_selection_does_no_worse_than_its_best_member(logits):
    p, truth = answers(members=5)
    found = greedy_weights(p, truth, logits)
    assert found.sum() == pytest.approx(1)
    assert loss(mean_answer(p, found, logits), truth) <= min(loss(member, truth) for member in p)
    assert greedy_weights(p, truth, logits, rounds=1)[-1] == 1  # the best alone comes first


def test_a_member_that_knows_everything_is_enough():
    p, truth = answers(members=2)
    sure = np.full_like(p[0], 1e-6)
    sure[np.arange(len(truth)), truth] = 1 - 3e-6
    assert greedy_weights(np.stack([p[0], sure]), truth).tolist() == [0, 1]
    assert fitted_weights(np.stack([p[0], sure]), truth)[1] > 0.99


def said(ids=("a", "b"), labels=("x", "y"), p=((0.9, 0.1), (0.2, 0.8))) -> Predictions:
    return Predictions(LabelSet(labels), list(ids), np.array(p), np.zeros((len(ids), 2)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (said(labels=("y", "x")), r"ensemble: n answers other labels \(y, x\) than m \(x, y\)"),
        (said(ids=("a", "c")), r"ensemble: n answers other rows"),
        (said(p=((np.nan, np.nan), (np.nan, np.nan))), "n answers valence and arousal alone"),
    ],
)
def test_members_that_do_not_fit_are_named(other, message):
    with pytest.raises(DataError, match=message):
        stacked([said(), other], ["m", "n"])


def test_rows_may_come_in_any_order():
    other = said(ids=("b", "a"), p=((0.6, 0.4), (0.5, 0.5)))
    assert np.allclose(averaged([said(), other]).probabilities, [[0.7, 0.3], [0.4, 0.6]])
    unknown = Predictions(other.labels, other.ids, other.probabilities, np.full((2, 2), np.nan))
    assert np.allclose(averaged([said(), unknown], [1, 0]).affect, 0)


def test_views_are_what_they_say():
    wide = np.random.default_rng(0).integers(0, 255, (2, 56, 56, 3)).astype(np.uint8)
    everything = list(views(wide, 4, ("flip", "shift", "multicrop")))
    assert len(everything) == view_count(("flip", "shift", "multicrop")) == 20
    assert all(view.shape == (2, 48, 48, 3) for view in everything)
    plain, mirrored, left = everything[:3]
    assert np.array_equal(plain, wide[:, 4:52, 4:52])
    assert np.array_equal(mirrored, plain[:, :, ::-1])
    assert np.array_equal(left, wide[:, 4:52, 2:50])  # looks into the border
    narrow = list(views(plain, 0, ("shift",)))
    assert np.array_equal(narrow[1][:, :, 2:], plain[:, :, :-2])
    assert np.array_equal(narrow[1][:, :, 0], plain[:, :, 0])  # the edge, repeated


def test_averaging_is_the_mean_over_views():
    class Light:
        def run(self, chips):
            p = chips[:, :, :24].mean(axis=(1, 2, 3)) / 255  # of the left half
            return np.stack([p, 1 - p], 1), np.stack([p, p], 1)

    cut = prepare(synthetic(8, labels=("neutral", "happiness")), FRAMING).chips
    labels = LabelSet(("neutral", "happiness"))
    flat = predict(Light(), labels, cut, ("flip",))
    pictures = next(views(np.stack([np.asarray(c) for c in _chips(cut)]), 0))
    by_hand = (Light().run(pictures)[0] + Light().run(pictures[:, :, ::-1])[0]) / 2
    assert np.allclose(flat.probabilities, by_hand)
    with pytest.raises(ConfigError, match=r"--tta flipp: no such view; did you mean 'flip'"):
        averaging_kinds("flipp")


def _chips(manifest):
    from mien.data.prepare import chips

    return chips(manifest)


def test_no_row_judges_weights_that_it_helped_to_choose():
    manifest = synthetic(400)
    rng = np.random.default_rng(0)
    truth = manifest.targets().argmax(1)
    told = []
    for worth in (0.6, 1.2, 1.6):
        logits = rng.normal(0, 1, (400, 8))
        logits[np.arange(400), truth] += worth
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        told.append(Predictions(manifest.labels, manifest.ids, p, manifest.affect()))
    found = cross_weighted("fitted", told, manifest, ["a", "b", "c"], False)
    swapped = np.array(told[2].probabilities)
    mean = averaged(told, None)
    assert not np.allclose(found.probabilities, mean.probabilities)
    assert loss(found.probabilities, truth) < loss(mean.probabilities, truth)
    # a row's own answer changes its own mean, never the weights that mean it
    swapped[0] = swapped[0][::-1]
    other = Predictions(manifest.labels, manifest.ids, swapped, manifest.affect())
    again = cross_weighted("fitted", [*told[:2], other], manifest, ["a", "b", "c"], False)
    same_side = np.isclose(again.probabilities, found.probabilities, atol=1e-9).all(axis=1)
    assert 150 < same_side.sum() < 250  # the half of row 0 is answered with the same weights as before
    share = _solved(found.probabilities[0], [part.probabilities[0] for part in told])
    assert np.allclose(
        share @ np.stack([t.probabilities[0] for t in (*told[:2], other)]), again.probabilities[0], atol=1e-6
    )


def of_subjects(manifest, names):
    at = manifest.table.schema.get_field_index("subject")
    return Manifest(manifest.header, manifest.table.set_column(at, "subject", pa.array(names, pa.string())))


def test_one_subject_cannot_both_choose_and_judge():
    manifest = synthetic(40)
    told = [Predictions(manifest.labels, manifest.ids, p, manifest.affect()) for p in answers(2, 40, 8)[0]]
    with pytest.raises(
        DataError, match=r"all labelled rows are of one subject, .*another split \(mien ensemble --select\)"
    ):
        cross_weighted("fitted", told, of_subjects(manifest, ["one"] * 40), ["a", "b"], False)
    two = of_subjects(manifest, ["one"] * 20 + ["two"] * 20)
    found = cross_weighted("fitted", told, two, ["a", "b"], False)
    assert np.allclose(found.probabilities.sum(axis=1), 1)


def _solved(mean: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """The weights behind one row's mean."""
    return np.linalg.lstsq(np.stack(parts, axis=1), mean, rcond=None)[0]
