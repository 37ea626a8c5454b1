"""What FER+'s votes say of FER2013's labels: a table to learn from with `mien train fer2013-small --teacher OUT`.

    python benchmarks/votes.py --data FER2013 --out votes7.parquet [--model ferplus-small] [--overwrite]

One FER2013 label says little of what others would have called the face: it agrees with the votes on two rows of three. Here
gradient-boosted trees (scikit-learn) learn the label from the ten votes and from what a model of FER+ says of the face, on three
quarters of Training, and answer for the fourth; four times, identical pictures together. So no row is told of by trees that
saw its label. The model must have learned from FER+'s votes alone; it saw those of Training, so what is printed of it is better
there than on PublicTest, which chooses nothing. The few rows that fer2013-small holds out are answered and learned from, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GroupKFold

from mien.cli.judging import predictions_of
from mien.data.manifest import Manifest
from mien.data.sources import read_source
from mien.data.sources.ferplus import all_votes
from mien.data.split import groups_of
from mien.evaluation.predictions import Predictions, predictions_kind, write_predictions
from mien.files import check_free
from mien.runtime.sessions import open_session
from mien.runtime.store import model_file

FOLDS = 4


def trees() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=80, learning_rate=0.08, max_leaf_nodes=15, min_samples_leaf=40, l2_regularization=1.0, random_state=0
    )


def told(rows: Manifest, votes: dict[str, tuple[int, ...]], model: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, 10) votes and (n, c) log probabilities."""
    said = predictions_of(model, rows, "flip").probabilities
    return np.array([votes[name] for name in rows.ids], np.float64), np.log(said + 1e-4)


def across(features: np.ndarray, labels: np.ndarray, same: np.ndarray) -> np.ndarray:
    """(n, 7) probabilities, each row by trees that did not see its picture."""
    found = np.zeros((len(labels), 7))
    for learned, asked in GroupKFold(FOLDS).split(features, labels, same):
        model = trees().fit(features[learned], labels[learned])
        found[np.ix_(asked, model.classes_)] = model.predict_proba(features[asked])
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--model", default="ferplus-small")
    options.add_argument("--overwrite", action="store_true")
    args = options.parse_args()

    predictions_kind(check_free(args.out, args.overwrite))
    trained = open_session(model_file(args.model), 1).spec.trained_on
    if any(not line.startswith(("ferplus", "began with ferplus", "taught by")) for line in trained):
        options.error(
            f"{args.model} learned from {'; '.join(trained)}: what it says may give labels away; take one of FER+ alone"
        )
    whole, votes = read_source("fer2013", args.data), all_votes(args.data)
    rows, judged = whole.split("train"), whole.split("validation")
    labels, truth = rows.targets().argmax(axis=1), judged.targets().argmax(axis=1)
    same = groups_of(rows)
    ours, theirs = told(rows, votes, args.model), told(judged, votes, args.model)
    kinds = {
        "votes": (ours[0], theirs[0]),
        args.model: (ours[1], theirs[1]),
        "both": (np.hstack(ours), np.hstack(theirs)),
    }
    print(
        "| FER2013's label from | Training, across folds: accuracy | log loss | PublicTest: accuracy | log loss |\n|---|---|---|---|---|"
    )
    for name, (learned, asked) in kinds.items():
        found = across(learned, labels, same)
        there = trees().fit(learned, labels).predict_proba(asked)
        figures = [accuracy_score(labels, found.argmax(1)), log_loss(labels, found)]
        figures += [accuracy_score(truth, there.argmax(1)), log_loss(truth, there)]
        print(f"| {name} | {figures[0]:.1%} | {figures[1]:.3f} | {figures[2]:.1%} | {figures[3]:.3f} |")
    silent = np.full((len(rows), 2), np.nan, np.float32)
    table = Predictions(whole.labels, rows.ids, found.astype(np.float32), silent)
    write_predictions(table, args.out, args.overwrite)
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
