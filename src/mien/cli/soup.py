"""mien soup: the average of several runs' weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mien.errors import ConfigError, MissingExtra


def soup(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more runs of one network that learned on from common weights, or earlier averages; the first a run."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The weights file (.safetensors); mien export makes a model of it.")],
    shares: Annotated[str | None, typer.Option(help="The share of each run, with commas; alike by default.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that exists.")] = False,
) -> None:
    """Average the weights of runs that learned on from common weights: one network, no more work than each of them."""
    from rich.table import Table

    from mien.cli.tables import print_table
    from mien.cli.train import tell
    from mien.report.tables import percent

    try:
        from mien.training.soup import soup as cook
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Averaging weights needs PyTorch and Lightning", "train") from error
    try:
        numbers = None if shares is None else [float(part) for part in shares.split(",")]
    except ValueError:
        raise ConfigError(f"--shares {shares}: expected numbers with commas, such as 0.7,0.3") from None
    made = cook(runs, out, numbers, threads, overwrite, tell)
    table = Table("weights", "accuracy", "macro recall", "NLL", "ECE", "CCC valence, arousal")
    for name, found in made.scores.items():
        one, affect = (None, None) if found is None else (found.expression, found.affect)
        cells = (
            ["-"] * 4
            if one is None
            else [percent(one.accuracy), percent(one.macro_recall), f"{one.nll:.3f}", percent(one.ece)]
        )
        table.add_row(name, *cells, "-" if affect is None else f"{affect.ccc[0]:.3f}, {affect.ccc[1]:.3f}")
    print_table(table)
    print(
        f"on the {made.held:,} rows that {runs[0]} held out\nweights: {out}\nnext: mien export {out} --out {out.with_suffix('.onnx')}"
    )
