"""Cleaning: each rule on planted rows; the log, the order, what is never touched."""

import csv

import numpy as np
import pytest
from test_audit import LABELS, png, row, table, texture, told

from mien.data.audit import audit
from mien.data.clean import RULES, clean
from mien.errors import ConfigError, DataError, OutputError


def planted():
    """Rows with one thing wrong each."""
    soft = np.zeros(8, np.float32)
    soft[:2] = 0.5
    one, two, three, four = texture(1), texture(2), texture(3), texture(4)
    return table(
        row("good", texture(0)),
        row("text", b"hello"),
        row("black", np.zeros((64, 64, 3), np.uint8)),
        row("soft", texture(5), target=soft),
        row("far", texture(6), valence=-2.0, arousal=0.0),
        row("sour", texture(7), "happiness", valence=-0.5, arousal=0.0),
        row("away", texture(8), box=(70, 5, 90, 30)),
        row("twin1", one, "fear"),
        row("twin2", one, "fear"),
        row("leak", two, "fear"),
        row("judge", two, "fear", split="validation"),
        row("odd1", three, "fear"),
        row("odd2", three, "fear"),
        row("odd3", three, "anger"),
        row("like1", four),
        row("like2", np.ascontiguousarray(four[:, ::-1])),
        row("like3", cv_bright(four), split="test"),
    )


def cv_bright(image):
    return np.clip(image * 0.8 + 30, 0, 255).astype(np.uint8)


DROPS = {
    "undecodable": ["text"],
    "blank": ["black"],
    "affect-range": ["far"],
    "affect-label": ["sour"],
    "box-outside": ["away"],
    "no-majority": ["soft"],
    "conflicts": ["odd1", "odd2", "odd3"],
    "leaks": ["leak"],
    "duplicates": ["twin2", "odd2", "odd3"],
    "near-duplicates": ["like1", "like2"],
}


@pytest.mark.parametrize("rule", DROPS)
def test_a_rule_drops_its_rows_and_no_others(rule):
    rows = planted()
    done = clean(rows, [rule])
    assert [line.id for line in done.log] == DROPS[rule]
    assert {(line.action, line.rule) for line in done.log} == {("dropped", rule)}
    assert done.manifest.ids == [name for name in rows.ids if name not in DROPS[rule]]
    assert done.manifest.header.left_out == {f"clean: {rule}": len(DROPS[rule])}
    assert len(rows) == 17
    assert rows.header.left_out == {}


def test_every_rule_is_tested_and_says_what_it_does():
    assert set(RULES) == {*DROPS, "majority-label", "label-errors"}
    assert all(function.__doc__ for function in RULES.values())


def test_identical_pictures_get_their_majority():
    done = clean(planted(), ["majority-label", "conflicts"])
    assert [(line.id, line.action, line.label) for line in done.log] == [("odd3", "relabelled", "fear")]
    sample = next(s for s in done.manifest if s.id == "odd3")
    assert sample.target.tolist() == LABELS.onehot("fear").tolist()
    assert len(done.manifest) == 17


def test_unlabelled_rows_get_no_label_from_their_likes():
    one = texture(1)
    rows = table(
        *(row(f"train{i}", one, label) for i, label in enumerate(("fear", "fear", "anger"))),
        row("silent", one, None),
        *(row(f"test{i}", one, None, split="test") for i in range(2)),
    )
    assert [(line.id, line.label) for line in clean(rows, ["majority-label"]).log] == [("train2", "fear")]


def test_the_order_of_the_names_does_not_matter():
    rules = ["duplicates", "leaks", "conflicts", "blank"]
    one, two = clean(planted(), rules), clean(planted(), rules[::-1])
    assert one.log == two.log
    assert one.manifest.fingerprint() == two.manifest.fingerprint()
    assert [line.id for line in one.log] == ["black", "odd1", "odd2", "odd3", "leak", "twin2"]


def test_a_judging_row_stays_whatever_stands_in_train():
    picture = texture(1)
    rows = table(
        row("t", picture, "fear"),
        row("v", picture, "anger", split="validation"),
        row("e", picture, "fear", split="test"),
        row("other", texture(2)),
    )
    done = clean(rows, [name for name in RULES if name != "label-errors"])
    assert done.manifest.ids == ["v", "e", "other"]
    assert done.log[0].reason == "fear; identical pictures elsewhere are anger"


def test_cleaning_twice_changes_nothing_more():
    rules = [name for name in RULES if name != "label-errors"]
    once = clean(planted(), rules)
    assert clean(once.manifest, rules).log == ()


def test_likely_label_errors_need_predictions():
    manifest, answers = told("xxxyyy", [0.1, 0.2, 0.9, 0.7, 0.9, 0.35])
    done = clean(manifest, ["label-errors"], audit(manifest, answers))
    assert [line.id for line in done.log] == ["2", "5"]
    assert done.log[0].reason == "x, likely y (the model gives x 0.10)"
    with pytest.raises(DataError, match="pass --model"):
        clean(manifest, ["label-errors"])


def test_the_log_is_a_table_and_appears_whole(tmp_path):
    done = clean(planted(), ["blank", "leaks"])
    done.write_log(tmp_path / "log.csv")
    with (tmp_path / "log.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines == [
        {"id": "black", "action": "dropped", "rule": "blank", "reason": "every pixel is 0"},
        {"id": "leak", "action": "dropped", "rule": "leaks", "reason": "identical to judge of validation"},
    ]
    with pytest.raises(OutputError, match="exists already"):
        done.write_log(tmp_path / "log.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_unknown_rules_and_foreign_audits_are_refused():
    rows = planted()
    with pytest.raises(ConfigError, match="unknown rule 'duplicate'; did you mean 'duplicates'"):
        clean(rows, ["duplicate"])
    with pytest.raises(ConfigError, match="none given"):
        clean(rows, [])
    with pytest.raises(DataError, match="audit: of 1 rows of planted, but the manifest has 17"):
        clean(rows, ["blank"], audit(table(row("a", png(texture(1))))))


def faces_of(seed, *rows, image=None):
    """Rows of one picture: (id, label, box)."""
    return [row(name, texture(seed) if image is None else image, label, box=box) for name, label, box in rows]


LEFT, RIGHT = (0, 0, 30, 60), (34, 0, 64, 60)


@pytest.mark.parametrize(
    ("rule", "dropped"), [("duplicates", ["c", "e", "f"]), ("conflicts", ["b", "d"]), ("majority-label", ["f"])]
)
def test_faces_of_one_picture_are_judged_by_their_boxes(rule, dropped):
    rows = table(
        *faces_of(1, ("a", "fear", LEFT), ("b", "anger", RIGHT), ("c", "fear", LEFT)),
        *faces_of(
            1, *((("d", "fear", RIGHT),) if rule == "conflicts" else (("e", "anger", RIGHT), ("f", "fear", RIGHT)))
        ),
        *faces_of(2, ("x", "fear", LEFT), ("y", "anger", RIGHT)),
    )
    assert [line.id for line in clean(rows, [rule]).log] == dropped


def test_near_copies_leave_every_face_of_the_first_picture():
    rows = table(
        *faces_of(1, ("a", "fear", LEFT), ("b", "anger", RIGHT), ("c", "fear", LEFT)),
        *faces_of(1, ("d", "fear", LEFT), ("e", "anger", RIGHT), image=cv_bright(texture(1))),
    )
    assert [line.id for line in clean(rows, ["near-duplicates"]).log] == ["c", "d", "e"]
    assert clean(rows, ["duplicates", "near-duplicates"]).manifest.ids == ["a", "b"]
