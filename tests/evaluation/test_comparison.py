"""Several models on the same rows: the order, the duels, the page."""

import statistics

import msgspec
import numpy as np
import pytest
import yaml
from test_judgement import answers

from mien.data.synthetic import synthetic
from mien.errors import DataError
from mien.evaluation.comparison import compare_models
from mien.evaluation.intervals import mcnemar
from mien.evaluation.judgement import judge
from mien.evaluation.predictions import Predictions
from mien.evaluation.robustness import Robustness
from mien.report.compared import comparison_page, comparison_text
from mien.report.tables import comparison_tables
from pages import check_page


@pytest.fixture(scope="module")
def three():
    drawn = synthetic(200, seed=1)
    told = [answers(drawn, right, seed) for right, seed in ((0.5, 0), (0.95, 1), (0.9, 2))]
    judged = [judge(name, one, drawn, draws=50) for name, one in zip(("low", "high", "<near>"), told, strict=True)]
    return drawn, told, judged, compare_models(judged, told, [drawn] * 3, count=200)


def test_the_best_comes_first_and_every_pair_is_tested(three):
    drawn, told, _, found = three
    assert [one.model for one in found.judgements] == ["high", "<near>", "low"]
    assert [(duel.first, duel.second) for duel in found.duels] == [
        ("high", "<near>"),
        ("high", "low"),
        ("<near>", "low"),
    ]
    truth = drawn.targets().argmax(1)
    high, low = (told[i].probabilities.argmax(1) == truth for i in (1, 0))
    duel = found.against_best("low")
    assert abs(duel.differences["accuracy"] - (high.mean() - low.mean())) < 1e-9
    assert duel.only_first == (high & ~low).sum()
    assert duel.p == mcnemar(duel.only_first, duel.only_second)
    assert duel.real
    assert duel.adjusted >= duel.p
    low_edge, high_edge = duel.intervals["macro_f1"]
    assert low_edge < duel.differences["macro_f1"] < high_edge
    assert found.against_best("high") is None


CROP = {"width": 48, "height": 48}


def run_of(judgement, seed, begun="rows a", text=None, **settings):
    recipe = {
        "name": "mine",
        "about": f"told {seed}",
        "seed": seed,
        "crop": CROP,
        "data": {"sources": ["ferplus"]},
    } | settings
    facts = {"model, recipe": yaml.safe_dump(recipe) if text is None else text, "model, trained on": begun}
    return msgspec.structs.replace(judgement, made=facts)


def test_runs_that_differ_by_their_seed_alone_are_summed_up(three):
    drawn, told, judged, _ = three
    found = compare_models([run_of(j, 7 - i) for i, j in enumerate(judged)], told, [drawn] * 3, count=20)
    (group,) = found.seeds
    assert (group.recipe, group.seeds, group.models) == ("mine", (5, 6, 7), ("<near>", "high", "low"))
    values = [j.scores.expression.accuracy for j in judged]
    assert group.means["accuracy"] == pytest.approx(statistics.mean(values), abs=1e-9)
    assert group.deviations["accuracy"] == pytest.approx(statistics.stdev(values), abs=1e-9)
    line = f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f} %"
    assert line in comparison_text(found, "mien compare a b c")
    assert "high (6); low (7)" in comparison_text(found, "mien compare a b c")
    page = comparison_page(found, "mien compare a b c")
    check_page(page)
    assert line in page
    assert msgspec.json.decode(msgspec.json.encode(found))["seeds"][0]["seeds"] == [5, 6, 7]


def test_a_default_written_out_or_not_is_the_same_and_a_seed_counts_once(three):
    drawn, told, judged, _ = three
    runs = [run_of(judged[0], 0), run_of(judged[1], 1, data={"sources": ["ferplus"], "fold": 0}), run_of(judged[2], 1)]
    (group,) = compare_models(runs, told, [drawn] * 3, count=20).seeds
    assert (group.models, group.seeds) == (("low", "high"), (0, 1))


@pytest.mark.parametrize(
    "second",
    [
        {"seed": 0},
        {"seed": 1, "optimizer": {"lr": 0.2}},
        {"seed": 1, "data": {"sources": ["ferplus"], "fold": 1}},
        {"seed": 1, "begun": "rows a; taught by b"},
        {"seed": 1, "text": "name: [mine"},
        {"seed": 1, "text": "a seed of doubt"},
        {"seed": 1, "text": "seed: 1"},
    ],
    ids=["one seed", "another setting", "another fold", "another start", "no YAML", "no recipe", "no name"],
)
def test_runs_that_differ_by_more_are_not(three, second):
    drawn, told, judged, _ = three
    pair = [run_of(judged[0], 0), run_of(judged[1], **second)]
    assert compare_models(pair, told[:2], [drawn] * 2, count=20).seeds == ()


def test_a_model_does_not_differ_from_itself(three):
    drawn, told, judged, _ = three
    twin = msgspec.structs.replace(judged[0], model="twin")
    found = compare_models([judged[0], twin], [told[0], told[0]], [drawn] * 2, count=50)
    duel = found.duels[0]
    assert (duel.differences["accuracy"], duel.intervals["accuracy"], duel.p, duel.real) == (0, (0, 0), 1, False)


def compared_by_affect(drawn, noise):
    """Models without expressions, by name; noise: how far valence and arousal lie from the truth."""
    silent = np.full((len(drawn), 8), np.nan)
    rng = np.random.default_rng(0)
    told = [
        Predictions(drawn.labels, drawn.ids, silent, np.clip(drawn.affect() + rng.normal(0, by, (200, 2)), -1, 1))
        for by in noise.values()
    ]
    judged = [judge(name, one, drawn, draws=20) for name, one in zip(noise, told, strict=True)]
    return compare_models(judged, told, [drawn] * 2, count=50)


def test_affect_alone_is_compared_by_ccc(three):
    found = compared_by_affect(three[0], {"far": 0.6, "near": 0.1})
    assert [one.model for one in found.judgements] == ["near", "far"]
    assert found.duels[0].real
    assert check_page(comparison_page(found, "mien compare")).text.count("CCC valence") >= 2


def test_better_valence_and_worse_arousal_is_no_real_difference(three):
    duel = compared_by_affect(three[0], {"a": (0.1, 0.8), "b": (0.8, 0.05)}).duels[0]
    (low, high), (least, most) = (duel.intervals[name] for name in ("valence ccc", "arousal ccc"))
    assert (low > 0 and most < 0) or (high < 0 and least > 0)
    assert not duel.real


def test_the_page_and_the_text_say_who_leads(three):
    found = three[3]
    html = comparison_page(found, "mien compare a b")
    page = check_page(html)
    assert "&lt;near&gt;" in html
    assert {a["id"] for a in page.all("h2")} == {"leaderboard", "duels", "classes", "sure", "confusion", "how"}
    assert "Holm" in page.text
    assert not page.all("img")
    text = comparison_text(found, "mien compare a b")
    assert text.index("| 1 | high") < text.index("| 2 | <near>") < text.index("| 3 | low")


def test_what_cannot_be_compared_is_told(three):
    drawn, told, judged, _ = three
    with pytest.raises(DataError, match="two or more models with names of their own"):
        compare_models([judged[0], judged[0]], told[:2], [drawn] * 2)
    with pytest.raises(DataError, match="other rows"):
        compare_models(judged[:2], told[:2], [drawn, drawn.take(range(5))])


def stood(relative: float) -> Robustness:
    """How a model stood corruptions of which nothing else is told."""
    edges = (relative - 0.01, relative + 0.01)
    return Robustness(
        rows=9,
        seed=0,
        clean=0.9,
        relative=relative,
        relative_interval=edges,
        flips=0.1,
        flips_interval=(0, 0.2),
        curves={},
        relatives={},
        relatives_intervals={},
    )


def test_what_was_judged_beside_stands_in_the_leaderboard(three):
    drawn, told, _, plain = three
    copies = set(drawn.ids[:30])
    judged = [judge(name, one, drawn, copies, draws=50) for name, one in zip(("low", "high"), told[:2], strict=True)]
    judged = [msgspec.structs.replace(one, robustness=stood(0.8 + i / 10)) for i, one in enumerate(judged)]
    board = comparison_tables(compare_models(judged, told[:2], [drawn] * 2, count=50))[0]
    high = dict(zip(board.head, board.rows[0], strict=True))
    assert high["accuracy without copies"] == f"{judged[1].without_copies.expression.accuracy:.1%}".replace("%", " %")
    assert high["relative accuracy"] == "90.0 %"
    assert board.rows[0][board.head.index("relative accuracy") + 1] == "89.0 to 91.0"
    assert "30 judged rows have an identical or near copy" in board.caption
    assert not {"accuracy without copies", "relative accuracy"} & set(comparison_tables(plain)[0].head)
    none = [judge(one.model, told[i], drawn, set(drawn.ids), draws=50) for i, one in enumerate(judged)]
    board = comparison_tables(compare_models(none, told[:2], [drawn] * 2, count=50))[0]
    assert "none left" in board.rows[0]


def test_ccc_without_copies_stands_in_the_leaderboard(three):
    drawn, told, _, _ = three
    silent = [Predictions(one.labels, one.ids, np.full_like(one.probabilities, np.nan), one.affect) for one in told[:2]]
    judged = [judge(name, one, drawn, set(drawn.ids[:30]), draws=50) for name, one in zip("ab", silent, strict=True)]
    board = comparison_tables(compare_models(judged, silent, [drawn] * 2, count=50))[0]
    row = dict(zip(board.head, board.rows[0], strict=True))
    best = next(one for one in judged if one.model == row["model"])
    for i, name in enumerate(("valence", "arousal")):
        assert row[f"CCC {name} without copies"] == f"{best.without_copies.affect.ccc[i]:.3f}"
