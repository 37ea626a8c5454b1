"""The curves of a run: what metrics.csv holds, as one picture."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path

from mien.files import whole_file

__all__ = ["write_curves"]


def write_curves(metrics: str | PathLike[str], out: str | PathLike[str], title: str) -> None:
    """A PNG with a panel for each kind of figure (loss, accuracy, macro_f1, ccc, learning rate) over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with Path(metrics).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name != "epoch"]
    kinds = list(dict.fromkeys(name.rpartition("/")[2] for name in names))
    figure, panels = plt.subplots(1, max(1, len(kinds)), figsize=(3.6 * max(1, len(kinds)), 3), squeeze=False)
    for panel, kind in zip(panels[0], kinds, strict=False):
        for name in (n for n in names if n.rpartition("/")[2] == kind):
            points = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
            panel.plot(*zip(*points, strict=True), marker=".", label=name)
        panel.set(title=kind, xlabel="epoch")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    with whole_file(out, overwrite=True) as part:
        figure.savefig(part, dpi=110)
    plt.close(figure)
