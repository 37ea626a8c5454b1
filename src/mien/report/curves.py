"""The curves of a run: what metrics.csv holds, as one picture."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path

from mien.files import whole_file

__all__ = ["write_curves"]

#: In the order of the panels.
_TITLES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "auxiliary": "loss of the second head",
    "auxiliary_accuracy": "accuracy of the second head",
    "ccc": "CCC, mean",
    "rmse": "RMSE, mean",
    "lr": "learning rate",
}
_WORDS = {"train": "train", "val": "held out"}


def _place(kind: str) -> int:
    return list(_TITLES).index(kind) if kind in _TITLES else len(_TITLES)


def write_curves(metrics: str | PathLike[str], out: str | PathLike[str], title: str) -> None:
    """A PNG with a panel for each kind of figure (loss, accuracy, macro F1, AUROC, CCC, learning rate) over the epochs.

    Without pyplot, whose backend and open figures are those of the notebook or program that trains.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with Path(metrics).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name != "epoch"]
    kinds = sorted({name.rpartition("/")[2] for name in names}, key=lambda kind: (_place(kind), kind))
    across = min(4, max(1, len(kinds)))
    down = -(-max(1, len(kinds)) // across)
    figure = Figure(figsize=(3.4 * across, 2.8 * down))
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False)
    for panel in panels.flat[len(kinds) :]:
        panel.set_visible(False)
    for panel, kind in zip(panels.flat, kinds, strict=False):
        for name in (n for n in names if n.rpartition("/")[2] == kind):
            points = [(int(row["epoch"]) + 1, float(row[name])) for row in rows if row.get(name)]
            if points:
                panel.plot(*zip(*points, strict=True), marker=".", label=_WORDS.get(name.partition("/")[0], name))
        panel.set(title=_TITLES.get(kind, kind), xlabel="epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        if "/" in "".join(names) and kind != "lr":
            panel.legend(fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    with whole_file(out, overwrite=True) as part:
        figure.savefig(part, dpi=110)
