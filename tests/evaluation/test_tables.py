"""Another tool's answers come in, or one clear error says what is wrong with them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mien.errors import DataError
from mien.evaluation.predictions import Predictions, write_predictions
from mien.evaluation.tables import read_predictions
from mien.labels import LabelSet


def test_other_words_and_another_order_come_in(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("id,angry,Happy,neutral,score\nr0,0.7,0.2,0.1,9\n1,0.1,0.8,0.1,9\n")
    told = read_predictions(path)
    assert told.labels.names == ("anger", "happiness", "neutral")
    assert told.ids == ["r0", "1"]
    assert told.probabilities[0].tolist() == [0.7, 0.2, 0.1]
    assert np.isnan(told.affect).all()
    path.write_text("id,p_sad,p_joy,p_bored,valence,arousal\nr0,0.5,0.25,0.25,0.5,-1\n")
    told = read_predictions(path)
    assert told.labels.names == ("sadness", "happiness", "bored")
    assert told.affect.tolist() == [[0.5, -1]]


def test_ids_are_words(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("\ufeffid,p_a,p_b\n007,1,0\n1e3,0,1\n", encoding="utf-8")
    assert read_predictions(path).ids == ["007", "1e3"]


def test_a_capital_ending_is_the_same_form(tmp_path):
    there = Predictions(LabelSet(("a", "b")), ["r0"], np.array([[0.75, 0.25]]), np.array([[0.5, -0.5]]))
    write_predictions(there, tmp_path / "P.PARQUET")
    assert (tmp_path / "P.PARQUET").read_bytes()[:4] == b"PAR1"
    assert read_predictions(tmp_path / "P.PARQUET").probabilities.tolist() == [[0.75, 0.25]]


def test_one_label_a_row_counts_as_certain(tmp_path):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"id": [1, 2], "emotion": ["Sad", "happy"]}), path)
    told = read_predictions(path)
    assert told.labels.names == ("happiness", "sadness")
    assert told.probabilities.tolist() == [[0, 1], [1, 0]]
    pq.write_table(pa.table({"id": [1, 2], "label": ["fear", "fear"]}), path)
    assert read_predictions(path).probabilities[:, 4].tolist() == [1, 1]


WRONG = {
    "name,p_a,p_b\nx,1,0\n": "no column id; it has name, p_a, p_b",
    "id,a,b\nx,1,0\n": "no columns p_LABEL and no column label",
    "id,p_a,p_b\n": "no rows",
    "id,p_a,p_b\nx,1,0\n,1,0\n": "row 1: no id",
    "id,p_a,p_b\nx,1,0\nx,1,0\n": "an id stands on two rows: x",
    "id,p_a,p_b\nx,3,-4\n": "probability of b for x is below 0",
    "id,p_a,p_b\nx,3,4\n": r"probabilities of x do not sum to one \(7\); give probabilities, not logits",
    "id,p_a,p_b\nx,40,60\n": "they look like percent: divide by 100",
    "id,p_a,p_b\nx,1,zero\n": "column p_b: not numbers",
    "id,p_a,p_b\nx,1,0\ny,nan,1\n": "probability of a for y is not a number",
    "id,p_a,p_b\nx,1,0\ny,,\n": "y has no probabilities, others have",
    "id,p_happy,p_joy\nx,1,0\n": "the columns happy and joy both mean happiness",
    "id,p_0,p_1\nx,1,0\n": "the label '0' is a code, and codes differ",
    "id,label\nx,3\n": "the label '3' is a code",
    "id,label\nx,sad\ny,\n": "row 1: no label",
    "id,label\nx,bored\ny,bored\n": "only one label, 'bored'",
    "id,p_a,p_a\nx,1,0\n": "two columns are called p_a",
    "id,p_a,p_b,valence\nx,1,0,3\n": "valence of x is 3; expected -1 to 1",
    "id,p_a,p_b,arousal\nx,1,0,-1.5\n": "arousal of x is -1.5; expected -1 to 1",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told(text, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=WRONG[text]) as told:
        read_predictions(path)
    assert str(told.value).startswith(str(path))


def test_a_table_that_is_none_or_not_there_is_told(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a readable table of predictions"):
        read_predictions(tmp_path / "p.parquet")
    with pytest.raises(DataError, match="no such table"):
        read_predictions(tmp_path / "q.csv")


def test_rows_can_be_taken():
    told = Predictions(LabelSet(("a", "b")), ["x", "y"], np.eye(2), np.zeros((2, 2)))
    assert told.take([1]).ids == ["y"]
    assert told.take([1]).probabilities.tolist() == [[0, 1]]
