"""Trains the runs of docs/results.md and judges them on PublicTest, which none of them sees or is chosen on.

    python benchmarks/results.py --data FER2013 --runs RUNS [--only NAME ...] [--threads N] [--table FILE]

FER2013: a folder with fer2013.csv and fer2013new.csv, or with Parquet files that hold both. A run that was stopped goes on
where it was; one that is finished is only judged. Without --only every run is made.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mien.cli.judging import predictions_of
from mien.data.manifest import Manifest
from mien.data.sources import read_source
from mien.data.split import project
from mien.evaluation.judgement import Judgement, judge
from mien.labels import affect_means


@dataclass(frozen=True)
class Trained:
    """One line of the table.  manifest: 'votes' for FER+ distributions with the affect that they imply, else the folder.
    rule: of FER+, for judging.  init: the run, or the model that ships, which it starts from."""

    recipe: str
    settings: tuple[str, ...] = ()
    original: str = ""
    manifest: str = ""
    source: str = "fer2013"
    init: str = ""


#: Few epochs of a large network: hardly any augmentation.
PLAIN = ("augment.rotate=0", "augment.scale=0", "augment.shift=0", "augment.light=0.1")
SCRATCH = "network.pretrained=false"
BEFORE = ("augment.light=0.35", "augment.blur=0.05")
ALONE = ("network.backbone=mien-small", "data.auxiliary=none", "schedule.sides=[]", *BEFORE)
VOTES = (
    SCRATCH,
    "data.sources=[ferplus]",
    "data.rule=distribution",
    "crop={width: 48, height: 48, align: five, colour: grey, points: [[0.3166, 0.3939], [0.6834, 0.3939], [0.5, 0.5964], [0.344, 0.7443], [0.656, 0.7443]]}",
    "optimizer.lr=0.001",
    "trainer.ema=0.99",
)
REGRESSOR = (*VOTES, "trainer.batch=64", "schedule.name=cosine")

RUNS = {
    "cnn": Trained("fer2013-cnn", ("schedule.epochs=6", *PLAIN, "optimizer.lr=0.0005"), "50 % (7 epochs)"),
    "mlp": Trained(
        "fer2013-mlp",
        ("trainer.batch=256", *PLAIN, "optimizer.lr=0.00002", "schedule.epochs=10"),
        "43.75 % (10 epochs)",
    ),
    "fcn": Trained("fer2013-fcn", ("schedule.epochs=8", "schedule.patience=2"), "none given (on AffectNet)"),
    "efficientnet3": Trained(
        "fer2013-3-efficientnet_b0",
        (
            SCRATCH,
            "crop.width=64",
            "crop.height=64",
            "crop.border=3",
            "schedule.epochs=4",
            "optimizer.lr=0.001",
            "trainer.batch=64",
            "trainer.precision=32-true",
        ),
        "80.7 % (50 epochs, pretrained, 160 px)",
    ),
    "resnet34": Trained(
        "fer2013-resnet34",
        (
            SCRATCH,
            "crop.width=48",
            "crop.height=48",
            "crop.border=3",
            "schedule.epochs=3",
            "schedule.warmup=0.3",
            "optimizer.lr=0.001",
            "trainer.batch=128",
            "trainer.ema=0.99",
        ),
        "55.84 % (50 epochs, 224 px)",
    ),
    "small": Trained("fer2013-small", (*ALONE, "schedule.epochs=20"), "70.14 % (R50+ViT-B, the best of the systems)"),
    "small-from-ferplus": Trained(
        "fer2013-small",
        (*ALONE, "optimizer.lr=0.03", "optimizer.decay=0.001", "schedule.epochs=16", "schedule.warmup=1"),
        "70.14 % (R50+ViT-B, the best of the systems)",
        init="ferplus-small",
    ),
    "both-label-sets": Trained(
        "fer2013-small",
        ("network.backbone=mien-wide", "schedule.epochs=56", *BEFORE),
        "70.14 % (R50+ViT-B, the best of the systems)",
    ),
    "classifier": Trained(
        "affectnet8-mobilenetv2",
        (*VOTES, "schedule.epochs=4", "schedule.name=cosine", "optimizer.lr=0.003", "loss.balance=0"),
        "accuracy .5992 (AffectNet)",
        source="ferplus",
    ),
    "regressor": Trained(
        "affectnet-affect-mobilenetv2",
        (*REGRESSOR, "schedule.epochs=3"),
        "CCC .582/.463 (AffectNet)",
        "votes",
        "ferplus",
    ),
    "regressor-from-classifier": Trained(
        "affectnet-affect-mobilenetv2-from-classifier",
        (*REGRESSOR, "optimizer.lr=0.0005", "schedule.epochs=2"),
        "not said apart",
        "votes",
        "ferplus",
        "classifier",
    ),
}


def votes(data: Path, runs: Path) -> Path:
    """FER+ distributions with the valence and arousal that they imply: target @ class means."""
    path = runs / "votes.parquet"
    if not path.is_file():
        manifest = read_source("ferplus", data, "distribution")
        affect = manifest.targets() @ affect_means(manifest.labels)
        table = manifest.table
        for column, name in enumerate(("valence", "arousal")):
            table = table.set_column(
                table.schema.get_field_index(name), name, pa.array(affect[:, column], pa.float32())
            )
        Manifest(manifest.header, table, manifest.root).write(path)
    return path


def command(name: str, data: Path, runs: Path, threads: int | None) -> list[str]:
    one = RUNS[name]
    source = votes(data, runs) if one.manifest == "votes" else data
    words = ["train", one.recipe, "--data", str(source), "--out", str(runs / name)]
    for setting in one.settings:
        words += ["--set", setting]
    words += ["--init", str(runs / one.init) if one.init in RUNS else one.init] if one.init else []
    words += ["--threads", str(threads)] if threads else []
    return [*words, "--resume"] if (runs / name / "last.ckpt").is_file() else words


def train(name: str, data: Path, runs: Path, threads: int | None) -> None:
    """Run `mien train`; RUN/minutes.txt keeps the minutes that it took, over all its starts."""
    if (runs / name / "weights.safetensors").is_file():
        return
    start = time.time()
    subprocess.run([sys.executable, "-m", "mien", *command(name, data, runs, threads)], check=True)
    with (runs / name / "minutes.txt").open("a", encoding="utf-8") as file:
        file.write(f"{(time.time() - start) / 60:.1f}\n")


def minutes(run: Path) -> float:
    path = run / "minutes.txt"
    return sum(map(float, path.read_text(encoding="utf-8").split())) if path.is_file() else float("nan")


def judged(name: str, data: Path, runs: Path) -> Judgement:
    one = RUNS[name]
    manifest = Manifest.read(votes(data, runs)) if one.manifest == "votes" else read_source(one.source, data)
    manifest = manifest.split("validation")
    if one.recipe.startswith("fer2013-3"):
        keep = np.flatnonzero(manifest.targets()[:, [manifest.labels.index(n) for n in THREE]].any(axis=1))
        manifest = project(manifest.take(keep), THREE)
    return judge(name, predictions_of(str(runs / name), manifest), manifest)


THREE = ("happiness", "sadness", "neutral")


def figures(found: Judgement) -> str:
    expression, affect = found.scores.expression, found.scores.affect
    if expression is not None:
        low, high = expression.interval
        return f"accuracy {expression.accuracy:.1%} ({low:.1%} to {high:.1%}), macro F1 {expression.macro_f1:.1%}, {expression.rows:,} faces"
    assert affect is not None
    return f"CCC {affect.ccc[0]:.3f}/{affect.ccc[1]:.3f}, RMSE {affect.rmse[0]:.3f}/{affect.rmse[1]:.3f}, {affect.rows:,} faces"


def line(name: str, data: Path, runs: Path) -> str:
    one = RUNS[name]
    settings = " ".join(f"`{s}`" for s in one.settings if not s.startswith("crop={")) or "as it is"
    return f"| {name} | `{one.recipe}` | {settings} | {minutes(runs / name):.0f} | {figures(judged(name, data, runs))} | {one.original} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--table", type=Path, help="write the table here")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        train(name, args.data, args.runs, args.threads)
    head = (
        "| run | recipe | settings on top | minutes | ours, on PublicTest | the original's |\n|---|---|---|---|---|---|"
    )
    text = "\n".join([head, *(line(name, args.data, args.runs) for name in args.only)])
    print(text)
    if args.table:
        args.table.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
