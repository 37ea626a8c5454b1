"""Every measure on five rows that were worked out on paper."""

from math import log, sqrt

import numpy as np
import pytest

from mien.evaluation.affect import score_affect
from mien.evaluation.agreement import agreement
from mien.evaluation.judgement import coverage
from mien.evaluation.metrics import judge_rows, reliability

P = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25], [0.6, 0.3, 0.1]])
#: Labels a a b b c; the fourth from votes that disagree.
TARGETS = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0.25, 0.75, 0], [0, 0, 1]])


@pytest.fixture(scope="module")
def found():
    return judge_rows(P, TARGETS, ("a", "b", "c"))


BY_HAND = {
    "accuracy": 3 / 5,
    "macro_recall": (1 / 2 + 1 + 0) / 3,
    "macro_precision": (1 / 2 + 2 / 3 + 0) / 3,
    "macro_f1": (0.5 + 0.8 + 0) / 3,
    "weighted_f1": (2 * 0.5 + 2 * 0.8 + 0) / 5,
    "kappa": (0.6 - 0.4) / (1 - 0.4),  # by chance: (2 x 2 + 2 x 3 + 1 x 0) / 25
    "alpha": 1 - 0.4 / (1 - (4 * 3 + 5 * 4 + 0) / 90),  # of ten values 4 are a, 5 are b, 1 is c
    "auroc": (5 / 6 + 5 / 6 + 1.5 / 4) / 3,
    "aucpr": (5 / 6 + 5 / 6 + 1 / 5) / 3,
    "top2": 4 / 5,
    "ece": (0.3 + 2 * 0.6 + 0.2 + 0.5) / 5,
    "nll": -(log(0.7) + log(0.3) + log(0.8) + log(0.5) + log(0.1)) / 5,
    "brier": (0.14 + 0.86 + 0.06 + 0.375 + 1.26) / 5,
    "cross_entropy": -(log(0.7) + log(0.3) + log(0.8) + 0.25 * log(0.25) + 0.75 * log(0.5) + log(0.1)) / 5,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_measure_by_hand(name, found):
    assert abs(getattr(found, name) - BY_HAND[name]) < 1e-9


def test_classes_and_confusion_by_hand(found):
    assert found.confusion == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert (found.classes["b"].rows, found.classes["b"].recall) == (2, 1)
    assert abs(found.classes["b"].precision - 2 / 3) < 1e-9


def test_calibration_by_hand():
    truth = TARGETS.argmax(axis=1)
    bins = [(round(said, 9), hit, rows) for said, hit, rows in reliability(P, truth)]
    assert bins == [(0.5, 1, 1), (0.6, 0, 2), (0.7, 1, 1), (0.8, 1, 1)]
    answered = {least: (share, hit) for least, share, hit in coverage(P, truth)}
    assert answered[0.5] == (1, 3 / 5)
    assert answered[0.65] == (2 / 5, 1)


def test_affect_by_hand():
    said = np.array([[0, -0.5], [0.5, 0.5], [1, 0.5]])
    true = np.array([[0, 0.5], [1, 0.5], [0.5, 0.5]])
    scores = score_affect(said, true)
    assert abs(scores.rmse[0] - sqrt(0.5 / 3)) < 1e-9
    assert abs(scores.mae[0] - 1 / 3) < 1e-9
    assert abs(scores.corr[0] - 0.5) < 1e-9
    assert abs(scores.ccc[0] - 0.5) < 1e-9
    assert scores.sagr == (1, 2 / 3)
    assert scores.quadrant == 2 / 3
    assert np.isnan(scores.corr[1])  # the truth is constant
    assert abs(scores.ccc[1]) < 1e-9


def test_agreement_by_hand():
    """Two rows: votes 3 1 0 and 2 2 0; the model says a and c."""
    found = agreement(np.array([0, 2]), np.array([[3, 1, 0], [2, 2, 0]]))
    assert (found.rows, found.raters) == (2, 4)
    assert found.model == (3 / 4 + 0) / 2
    assert found.people == (6 / 12 + 4 / 12) / 2
    # row 1: the three a see a 2:1; the b sees a 3:0.  Row 2: each sees its own label once and the other twice.
    assert found.others == (3 / 4 + 0) / 2
    assert found.most == (3 / 4 + 2 / 4) / 2
    # pairs that agree: 6/3 + 4/3 of 8 values; values a 5, b 3.
    assert abs(found.alpha - (1 - (1 - (10 / 3) / 8) / (1 - (20 + 6) / 56))) < 1e-9
