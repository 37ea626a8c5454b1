"""Judgements: copies left out, the report as a person gets it, comparisons from the command line."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mien.data.manifest import Manifest
from mien.data.split import project
from mien.data.synthetic import synthetic
from mien.evaluation.judgement import copies_in_training, coverage, judge
from mien.evaluation.predictions import Predictions, write_predictions
from mien.report.judged import judgement_page, judgement_text


def answers(manifest: Manifest, right: float, seed: int = 0) -> Predictions:
    """Predictions that are right on about this share of the rows, each with a confidence of 0.5 to 0.9."""
    rng = np.random.default_rng(seed)
    truth = manifest.targets().argmax(1)
    c = len(manifest.labels)
    said = np.where(rng.random(len(truth)) < right, truth, rng.integers(0, c, len(truth)))
    sure = rng.uniform(0.5, 0.9, len(truth))
    p = np.repeat(((1 - sure) / (c - 1))[:, None], c, axis=1)
    p[np.arange(len(truth)), said] = sure
    return Predictions(manifest.labels, manifest.ids, p, np.clip(manifest.affect() + 0.1, -1, 1))


@pytest.fixture
def drawn() -> Manifest:
    return synthetic(120, seed=0)


def test_copies_are_found_across_manifests(drawn):
    test = drawn.take(range(10))
    train = drawn.take([3, 4, *range(40, 60)])
    assert copies_in_training(test, train) >= {"synthetic:3", "synthetic:4"}


def test_a_judgement_has_intervals_and_a_second_score(drawn):
    found = judge("m", answers(drawn, 0.8), drawn, {"synthetic:0", "synthetic:1", "another"}, draws=200)
    assert found.copies == 2
    assert found.without_copies.expression.rows == 118
    for name in ("macro_recall", "macro_f1", "kappa"):
        low, high = found.intervals[name]
        assert low <= getattr(found.scores.expression, name) <= high
    low, high = found.intervals["valence ccc"]
    assert low <= found.scores.affect.ccc[0] <= high
    everything = judge("m", answers(drawn, 0.8), drawn, set(drawn.ids), draws=10)
    assert everything.without_copies is None


def test_coverage_falls_as_confidence_rises():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.55, 0.45]])
    found = {least: (share, hit) for least, share, hit in coverage(p, np.array([0, 0, 1]))}
    assert found[0.0] == (1.0, 2 / 3)
    assert found[0.6] == (2 / 3, 1.0)
    assert found[0.9] == (1 / 3, 1.0)
    assert 0.95 not in found


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.links, self.titles = [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes)
        if tag == "h2":
            self.titles.append(attributes.get("id"))
        self.links += [v for k, v in attrs if k in {"src", "href"} and v]


def test_the_page_is_whole_and_shows_the_faces(drawn):
    told = answers(drawn, 0.7)
    found = judge("<model>", told, drawn, draws=50)
    text = judgement_page(found, told, drawn, "mien evaluate <model>")
    page = Page()
    page.feed(text)
    assert not [link for link in page.links if link.startswith(("http", "//"))]
    assert len(page.images) > 24
    assert all(image["alt"] for image in page.images)
    assert {"figures", "confusion", "classes", "sure", "affect", "mistakes", "doubts", "how"} <= set(page.titles)
    assert "&lt;model&gt;" in text
    assert "accuracy" in judgement_text(found, "mien evaluate m")


def test_rivals_are_judged_and_compared(mien, drawn):
    drawn.write("d.parquet")
    test = drawn.split("test")
    write_predictions(answers(drawn, 0.95), "good.csv")
    write_predictions(answers(test, 0.3, seed=1), "bad.parquet")
    code, out, _ = mien("evaluate", "good.csv", "--data", "d.parquet", "--split", "test", "--out", "r.html")
    assert code == 0
    assert "macro recall" in out
    assert "Valence and arousal" in out
    assert "<html" in Path("r.html").read_text()
    code, out, _ = mien("evaluate", "bad.parquet", "--data", "d.parquet", "--split", "test", "--json")
    assert json.loads(out)["scores"]["expression"]["rows"] == len(test)
    code, out, _ = mien("compare", "bad.parquet", "good.csv", "--data", "d.parquet", "--split", "test")
    assert code == 0
    assert out.index("good.csv") < out.index("bad.parquet")
    assert "yes" in out
    code, _, err = mien("compare", "good.csv", "--data", "d.parquet")
    assert (code, "two or more" in err) == (2, True)
    code, _, err = mien("evaluate", "good.csv", "--data", "d.parquet", "--split", "test", "--out", "r.html")
    assert (code, "exists already" in err) == (2, True)


def test_fewer_labels_leave_rows_out(mien, drawn):
    drawn.write("d.parquet")
    write_predictions(answers(drawn, 0.9), "a.csv")
    code, out, _ = mien(
        "evaluate", "a.csv", "--data", "d.parquet", "--split", "test", "--labels", "affectnet7", "--json"
    )
    assert code == 0
    assert json.loads(out)["scores"]["expression"]["rows"] == len(project(drawn.split("test"), "affectnet7"))
