"""Every measure against an independent oracle and by hand; predictions in and out; intervals and comparisons."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from mien.data.manifest import Header, Sample, make_manifest
from mien.errors import DataError
from mien.evaluation.affect import concordance, correlation, mae, quadrants, rmse, sagr, score_affect
from mien.evaluation.ensemble import averaged
from mien.evaluation.intervals import bootstrap, compare_rows, mcnemar
from mien.evaluation.metrics import judge_rows, nominal_alpha, reliability, score, wilson
from mien.evaluation.predictions import Predictions, projected, write_predictions
from mien.evaluation.tables import read_predictions
from mien.evaluation.weighted import affect_figures
from mien.labels import LabelSet, label_set

#: A published confusion matrix (MobileNetV2 on AffectNet's validation images): rows true, columns predicted, in the
#: order of affectnet8; published figures: accuracy .5992, F1 .60, kappa .542, alpha .5419.
PUBLISHED = np.array(
    [
        [280, 11, 50, 40, 16, 15, 41, 47],
        [19, 371, 6, 24, 3, 11, 3, 63],
        [65, 6, 314, 15, 27, 21, 47, 5],
        [45, 33, 24, 293, 69, 16, 11, 9],
        [22, 8, 36, 79, 312, 24, 19, 0],
        [28, 17, 47, 14, 15, 269, 91, 19],
        [65, 4, 28, 21, 25, 48, 293, 16],
        [82, 66, 16, 14, 4, 25, 28, 265],
    ]
)


def rows_of(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(t, s) for t in range(len(confusion)) for s in range(len(confusion)) for _ in range(confusion[t, s])]
    truth, said = np.array(pairs).T
    return truth, said


def random_rows(n=400, c=5, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.ones(c) * 0.5, n)
    probabilities = 0.6 * rng.dirichlet(np.ones(c), n) + 0.4 * targets
    return probabilities, targets


def test_the_published_confusion_matrix_gives_the_published_figures():
    truth, said = rows_of(PUBLISHED)
    found = judge_rows(np.eye(8)[said], np.eye(8)[truth], label_set("affectnet8").names)
    assert found.rows == 4000
    assert abs(found.accuracy - 0.5992) < 1e-4
    assert round(found.macro_f1, 2) == 0.60
    assert round(found.kappa, 3) == 0.542
    assert round(found.alpha, 4) == 0.5419
    assert found.confusion == PUBLISHED.tolist()


def test_expressions_agree_with_scikit_learn():
    p, targets = random_rows()
    truth, said = targets.argmax(1), p.argmax(1)
    found = judge_rows(p, targets, tuple("abcde"))
    onehot = np.eye(5)[truth]
    oracle = {
        "accuracy": sk.accuracy_score(truth, said),
        "macro_f1": sk.f1_score(truth, said, average="macro"),
        "weighted_f1": sk.f1_score(truth, said, average="weighted"),
        "macro_recall": sk.balanced_accuracy_score(truth, said),
        "macro_precision": sk.precision_score(truth, said, average="macro"),
        "kappa": sk.cohen_kappa_score(truth, said),
        "auroc": sk.roc_auc_score(truth, p, multi_class="ovr"),
        "aucpr": np.mean([sk.average_precision_score(onehot[:, i], p[:, i]) for i in range(5)]),
        "top2": sk.top_k_accuracy_score(truth, p, k=2),
        "nll": sk.log_loss(truth, p),
        "brier": np.mean(np.sum((p - onehot) ** 2, axis=1)),
        "cross_entropy": -np.mean(np.sum(targets * np.log(p), axis=1)),
    }
    for name, value in oracle.items():
        assert abs(getattr(found, name) - value) < 1e-9, name


def test_alpha_by_its_coincidence_matrix():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (a, b), 1)
    np.add.at(pairs, (b, a), 1)
    totals = pairs.sum(0)
    n = totals.sum()
    observed = (pairs.sum() - np.trace(pairs)) / n
    expected = (n**2 - (totals**2).sum()) / (n * (n - 1))
    assert abs(nominal_alpha(a, b) - (1 - observed / expected)) < 1e-9
    assert nominal_alpha(a, a) == 1
    assert np.isnan(nominal_alpha(np.zeros(3), np.zeros(3)))


def test_affect_agrees_with_scipy_and_numpy():
    rng = np.random.default_rng(2)
    true = rng.uniform(-1, 1, (300, 2))
    said = np.clip(0.7 * true + rng.normal(0, 0.2, true.shape), -1, 1)
    x, y = said[:, 0], true[:, 0]
    assert abs(correlation(x, y) - stats.pearsonr(x, y).statistic) < 1e-9
    assert abs(rmse(x, y) - sk.root_mean_squared_error(y, x)) < 1e-9
    assert abs(mae(x, y) - sk.mean_absolute_error(y, x)) < 1e-9
    covariance = np.cov(x, y, bias=True)
    by_hand = 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (x.mean() - y.mean()) ** 2)
    assert abs(concordance(x, y) - by_hand) < 1e-9
    assert sagr(np.array([1, -1, 0, 0.0]), np.array([1, 1, 0, -1.0])) == 0.5
    assert quadrants(np.array([[1, 1], [1, -1.0]]), np.array([[0.5, 0.1], [1, 1.0]])) == 0.5
    assert np.isnan(correlation(np.zeros(3), y[:3]))
    true[::2] = np.nan
    assert score_affect(said, true).rows == 150
    assert score_affect(said, np.full_like(true, np.nan)) is None
    with pytest.raises(DataError, match="expected -1 to 1"):
        score_affect(said * 3, true)


def test_edges_of_judging_are_stated_not_silent():
    one = judge_rows(np.array([[0.2, 0.8]]), np.array([[0.0, 1.0]]), ("a", "b"))
    assert (one.rows, one.accuracy, one.macro_recall) == (1, 1.0, 1.0)
    assert np.isnan(one.auroc)
    assert np.isnan(one.kappa)
    constant = judge_rows(np.tile([0.6, 0.4], (4, 1)), np.eye(2)[[0, 0, 1, 1]], ("a", "b"))
    assert constant.kappa == 0
    assert constant.classes["b"].precision == 0
    absent = judge_rows(np.eye(3)[[0, 1]], np.eye(3)[[0, 1]], ("a", "b", "c"))
    assert set(absent.classes) == {"a", "b"}
    assert absent.macro_f1 == 1


def test_reliability_bins_hold_every_row():
    p, targets = random_rows()
    parts = reliability(p, targets.argmax(1))
    assert sum(rows for _, _, rows in parts) == 400
    assert all(abs(np.mean(said) - said) < 1e-12 for said, _, _ in parts)


def test_intervals_cover_and_subjects_widen_them():
    rng = np.random.default_rng(3)
    hits = rng.random(200) < 0.7
    low, high = bootstrap(lambda rows: float(hits[rows].mean()), 200)
    oracle = stats.bootstrap(
        (hits.astype(float),), np.mean, method="percentile", rng=np.random.default_rng(0), n_resamples=2000
    )
    assert abs(low - oracle.confidence_interval.low) < 0.02
    assert abs(high - oracle.confidence_interval.high) < 0.02
    assert abs(wilson(140, 200)[0] - stats.binomtest(140, 200).proportion_ci(method="wilson").low) < 1e-9
    clustered = np.repeat(rng.random(20) < 0.7, 10)
    names = [f"S{i // 10}" for i in range(200)]
    alone = bootstrap(lambda rows: float(clustered[rows].mean()), 200)
    together = bootstrap(lambda rows: float(clustered[rows].mean()), 200, names)
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])
    assert np.isnan(bootstrap(lambda _: float("nan"), 5)).all()
    assert bootstrap(lambda _: 1.0, 5) == (1.0, 1.0)


def test_differences_on_the_same_rows():
    first, second = np.ones(100, bool), np.ones(100, bool)
    second[:20] = False
    found = compare_rows(first, second)
    assert (found.difference, found.only_first, found.only_second, found.real) == (0.2, 20, 0, True)
    assert found.p == stats.binomtest(20, 20).pvalue == mcnemar(20, 0)
    assert not compare_rows(first, first).real
    assert mcnemar(0, 0) == 1


LABELS = LabelSet(("happiness", "sadness", "anger"))


def predictions(n=6, labels=LABELS) -> Predictions:
    p, _ = random_rows(n, len(labels))
    return Predictions(labels, [f"r{i}" for i in range(n)], p, np.zeros((n, 2)))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_predictions_come_back_as_they_were(suffix, tmp_path):
    ours = predictions()
    write_predictions(ours, tmp_path / f"p.{suffix}")
    theirs = read_predictions(tmp_path / f"p.{suffix}")
    assert theirs.labels == ours.labels
    assert theirs.ids == ours.ids
    assert np.allclose(theirs.probabilities, ours.probabilities)
    assert np.allclose(theirs.affect, ours.affect)


def test_another_tools_labels_come_in(tmp_path):
    (tmp_path / "p.csv").write_text("id,label\nr0,sadness\nr1,happiness\nr2,sadness\n")
    told = read_predictions(tmp_path / "p.csv")
    assert list(told.labels) == ["happiness", "sadness"]
    assert told.probabilities.argmax(1).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name,p_a,p_b\nx,1,0\n", "no column id"),
        ("id,a,b\nx,1,0\n", "no columns p_LABEL and no column label"),
        ("id,p_a,p_b\nx,1,0\nx,1,0\n", "an id stands on two rows"),
        ("id,p_a,p_b\nx,3,4\n", "the probabilities of x do not sum to one"),
        ("id,p_a,p_b\nx,1,zero\n", "column p_b: not numbers"),
    ],
)
def test_tables_that_are_wrong_say_so(text, why, tmp_path):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(DataError, match=why):
        read_predictions(tmp_path / "p.csv")


def manifest(n=6):
    rows = [Sample(f"r{i}", b"x", LABELS.onehot(LABELS.names[i % 3]), valence=0.1, arousal=-0.1) for i in range(n)]
    return make_manifest(rows, Header(source="drawn", labels=LABELS.names))


def test_rows_that_are_missing_or_foreign_are_named():
    with pytest.raises(DataError, match=r"1 rows have none \(such as r5\)"):
        score(predictions(5), manifest(6))
    with pytest.raises(DataError, match=r"1 are of other rows \(such as r6\)"):
        score(predictions(7), manifest(6))
    found = score(predictions(6), manifest(6))
    assert found.expression.rows == 6
    assert found.affect.rows == 6
    with pytest.raises(DataError, match="choose a common set with --labels"):
        score(predictions(6, LabelSet(("sadness", "happiness", "anger"))), manifest(6))


def test_projection_and_ensembles():
    two = projected(predictions(), LabelSet(("anger", "happiness")))
    assert np.allclose(two.probabilities.sum(1), 1)
    a, b = predictions(), predictions()
    b = Predictions(LABELS, b.ids[::-1], b.probabilities[::-1], b.affect)
    assert np.allclose(averaged([a, b]).probabilities, a.probabilities)
    c = Predictions(LABELS, a.ids, np.roll(a.probabilities, 1, axis=1), a.affect)
    assert np.allclose(averaged([a, c], [1, 3]).probabilities, 0.25 * a.probabilities + 0.75 * c.probabilities)
    geometric = np.sqrt(a.probabilities * c.probabilities)
    assert np.allclose(averaged([a, c], logits=True).probabilities, geometric / geometric.sum(1, keepdims=True))
    with pytest.raises(DataError, match="answers other rows"):
        averaged([a, predictions(5)])


@pytest.mark.parametrize("level", [0.3, -0.1, 0.7])
def test_concordance_with_a_constant_is_zero_and_has_no_sign(level):
    """By Lin's formula the covariance is 0; rounding left something of either sign, shown as -0.000."""
    said = np.random.default_rng(0).uniform(-1, 1, (31, 2))
    true = np.full((31, 2), level)
    weights = np.random.default_rng(1).multinomial(31, np.full(31, 1 / 31), 50).astype(float)
    drawn = affect_figures(said, true)(weights)
    for value in (concordance(said[:, 0], true[:, 0]), concordance(true[:, 0], said[:, 0]), *drawn["valence ccc"]):
        assert str(float(value)) == "0.0"
    assert np.isnan(concordance(true[:, 0], true[:, 0]))
