"""Figures of weighted rows: with ones the plain measures, with whole numbers those of repeated rows; intervals; raters."""

from itertools import combinations

import numpy as np
import pytest
from sklearn import metrics as sk

from mien.evaluation.affect import score_affect
from mien.evaluation.agreement import agreement, raters_alpha
from mien.evaluation.intervals import bootstrap, holm
from mien.evaluation.metrics import judge_rows, wilson
from mien.evaluation.resample import draws, intervals
from mien.evaluation.slices import difference_interval
from mien.evaluation.weighted import affect_figures, expression_figures

LABELS = tuple("abcd")


def rows(n=300, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.ones(4) * 0.5, n)
    p = np.round(0.6 * rng.dirichlet(np.ones(4), n) + 0.4 * targets, 2)  # rounded: with ties
    return p / p.sum(axis=1, keepdims=True), targets


@pytest.mark.parametrize("repeated", [False, True])
def test_weights_stand_for_repeated_rows(repeated):
    p, targets = rows()
    weights = np.random.default_rng(1).integers(0, 4, (1, len(p))) if repeated else np.ones((1, len(p)), int)
    again = np.repeat(np.arange(len(p)), weights[0])
    found = {name: values[0] for name, values in expression_figures(p, targets, LABELS)(weights.astype(float)).items()}
    plain = judge_rows(p[again], targets[again], LABELS)
    measures = (
        "accuracy",
        "macro_recall",
        "macro_precision",
        "macro_f1",
        "weighted_f1",
        "kappa",
        "alpha",
        "auroc",
        "aucpr",
    )
    for name in (*measures, "top2", "ece", "nll", "brier", "cross_entropy"):
        assert abs(found[name] - getattr(plain, name)) < 1e-9, name
    for label, one in plain.classes.items():
        for what in ("recall", "precision", "f1"):
            assert abs(found[f"{label} {what}"] - getattr(one, what)) < 1e-9


def test_areas_agree_with_scikit_learn_on_weighted_rows():
    p, targets = rows(seed=2)
    weights = np.random.default_rng(3).uniform(0, 2, (1, len(p)))
    onehot = np.eye(4)[targets.argmax(1)]
    found = expression_figures(p, targets, LABELS)(weights)
    area = np.mean([sk.roc_auc_score(onehot[:, i], p[:, i], sample_weight=weights[0]) for i in range(4)])
    precision = np.mean([sk.average_precision_score(onehot[:, i], p[:, i], sample_weight=weights[0]) for i in range(4)])
    assert abs(found["auroc"][0] - area) < 1e-9
    assert abs(found["aucpr"][0] - precision) < 1e-9


def test_affect_of_weighted_rows():
    rng = np.random.default_rng(4)
    true = np.round(rng.uniform(-1, 1, (200, 2)), 1)
    said = np.clip(0.7 * true + rng.normal(0, 0.2, true.shape), -1, 1)
    weights = rng.integers(0, 3, (1, 200))
    again = np.repeat(np.arange(200), weights[0])
    found = affect_figures(said, true)(weights.astype(float))
    plain = score_affect(said[again], true[again])
    for i, what in enumerate(("valence", "arousal")):
        for name in ("rmse", "mae", "corr", "sagr", "ccc"):
            assert abs(found[f"{what} {name}"][0] - getattr(plain, name)[i]) < 1e-9
    assert abs(found["quadrant"][0] - plain.quadrant) < 1e-9
    constant = affect_figures(np.zeros((5, 2)), np.zeros((5, 2)))(np.ones((1, 5)))
    assert np.isnan(constant["valence corr"][0])
    assert np.isnan(constant["valence ccc"][0])


def test_intervals_of_many_figures_are_those_of_one_alone():
    p, targets = rows(60)
    hits = (p.argmax(1) == targets.argmax(1)).astype(float)
    for names in (None, [f"S{i // 6}" for i in range(60)]):
        together = intervals(expression_figures(p, targets, LABELS), 60, names, 200)
        alone = bootstrap(lambda drawn: float(hits[drawn].mean()), 60, names, 200)
        assert np.allclose(together["accuracy"], alone)
    assert sum(len(block) for block in draws(50_000, count=90)) == 90


def test_a_class_missing_from_a_draw_is_left_out_of_it():
    p, targets = np.eye(2)[[0, 0, 1]] * 0.8 + 0.1, np.eye(2)[[0, 0, 1]]
    found = expression_figures(p, targets, ("a", "b"))(np.array([[2.0, 1, 0]]))
    assert found["macro_recall"][0] == 1
    assert np.isnan(found["b recall"][0])
    assert np.isnan(found["auroc"][0])
    assert np.isnan(found["kappa"][0])


def test_raters_agree_as_often_as_their_pairs_do():
    rng = np.random.default_rng(5)
    votes = rng.multinomial(4, [0.5, 0.3, 0.2], 80)
    votes[:5] = [2, 1, 0]
    votes[5] = [1, 0, 0]  # one vote: counts for nothing
    said = rng.integers(0, 3, 80)
    people = [[label for label in range(3) for _ in range(row[label])] for row in votes]
    kept = [i for i, row in enumerate(people) if len(row) > 1]
    pairs = [np.mean([a == b for a, b in combinations(people[i], 2)]) for i in kept]
    model = [np.mean([said[i] == rater for rater in people[i]]) for i in kept]
    others = [np.mean([_share(people[i], k) for k in range(len(people[i]))]) for i in kept]
    found = agreement(said, votes)
    assert found.rows == len(kept) == 79
    assert abs(found.people - np.mean(pairs)) < 1e-9
    assert abs(found.model - np.mean(model)) < 1e-9
    assert abs(found.others - np.mean(others)) < 1e-9
    assert abs(found.alpha - _alpha([people[i] for i in kept])) < 1e-9
    assert agreement(said, np.zeros((80, 3), int)) is None
    assert np.isnan(raters_alpha(np.array([[3, 0]])))


def _share(row, k):
    """How far rater k says what most of the others say, by counting."""
    rest = np.bincount(row[:k] + row[k + 1 :], minlength=3)
    first = np.flatnonzero(rest == rest.max())
    return (row[k] in first) / len(first)


def _alpha(people):
    """Krippendorff's alpha by his coincidence matrix."""
    table = np.zeros((3, 3))
    for row in people:
        for i, a in enumerate(row):
            for j, b in enumerate(row):
                table[a, b] += (i != j) / (len(row) - 1)
    totals, n = table.sum(axis=1), table.sum()
    off = n**2 - (totals**2).sum()
    return 1 - (n - 1) * (n - np.trace(table)) / off


def test_corrections_and_differences_as_published():
    ps = [0.01, 0.02, 0.03, 0.005]
    assert np.allclose(holm(ps), [0.03, 0.04, 0.04, 0.02])
    assert holm([]) == []
    # Newcombe 1998, table II, method 10: 56/70 - 48/80 gives 0.0524 to 0.3339; 9/10 - 3/10 gives 0.1705 to 0.8090.
    for (a, m), (b, n), edges in (((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090))):
        found = difference_interval(a / m, wilson(a, m), b / n, wilson(b, n))
        assert np.allclose(found, edges, atol=5e-5)
