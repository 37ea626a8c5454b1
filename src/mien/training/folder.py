"""The run folder: made, claimed and described."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import torch

from mien.alone import ALONE, alone
from mien.errors import ConfigError, OutputError
from mien.files import whole_file
from mien.recipe import DetectorRecipe, Recipe, load_recipe, recipe_text
from mien.sections import TrainerSection

__all__ = ["open_run", "rank_here", "write_environment"]


def rank_here(chosen: TrainerSection) -> int:
    """The number of this process among those of one training, 0 for the first, as torchrun, srun and Lightning tell them.

    srun starts a task for each device of a job but also many trainings of one device each, of which each is the first.
    """
    if chosen.devices * chosen.nodes == 1:
        return 0
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    slurm = "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in {"bash", "interactive"}
    if slurm:
        return int(os.environ.get("SLURM_PROCID", "0"))
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def open_run(folder: Path, recipe: Recipe | DetectorRecipe, resume: bool, rank: int = 0) -> Iterator[Path]:
    """For this training alone: a new run folder with its recipe, or an unfinished one with the same recipe.

    rank: of this process; the first one does it for all. Raises OutputError, ConfigError.
    """
    if rank:
        yield folder
        return
    written = folder / "recipe.yaml"
    if resume and not written.is_file():
        raise OutputError(f"{folder}: no run to resume here (no recipe.yaml)")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror or error})") from error
    with alone(folder, f"{folder}: another process trains there"):
        if resume:
            _check_same(written, recipe)
        elif any(path.name not in {written.name, *ALONE} for path in folder.iterdir()):
            raise OutputError(f"{folder}: exists already; choose another folder or pass --resume")
        else:
            with whole_file(written, overwrite=True) as part:  # of a start that failed before anything was done
                part.write_text(recipe_text(recipe), encoding="utf-8")
        yield folder


def _check_same(written: Path, recipe: Recipe | DetectorRecipe) -> None:
    if _unsaid(load_recipe(written)) != _unsaid(recipe):
        raise ConfigError(
            f"{written}: the run was started with another recipe; give that recipe's name alone, or the same file and --set again"
        )
    if _older(written, recipe):
        raise ConfigError(
            f"{written}: begun by an older mien, whose seed chose the held-out rows; end it with that one, or begin anew"
        )


def _older(written: Path, recipe: Recipe | DetectorRecipe) -> bool:
    """Whether a run's held-out rows were chosen by its seed, and are others today (`data.fold` is written out since)."""
    if not isinstance(recipe, Recipe) or not recipe.data.validation or not recipe.seed:
        return False
    return "\n  fold:" not in written.read_text(encoding="utf-8")


def _unsaid(recipe: Recipe | DetectorRecipe) -> Recipe | DetectorRecipe:
    """Without the words about it, which a newer mien may have changed."""
    return msgspec.structs.replace(recipe, about="")


def write_environment(folder: Path, origins: dict[str, Any]) -> None:
    """environment.json: versions, machine, and what training started from."""
    packages = ("mien", "torch", "lightning", "timm", "numpy", "opencv-python-headless")
    facts = {
        "versions": {name: _version(name) for name in packages},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        **origins,
    }
    with whole_file(folder / "environment.json", overwrite=True) as part:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
