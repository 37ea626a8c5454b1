"""Several runs of one network as one: the average of their weights.

After Wortsman et al. 2022, "Model soups" (arXiv:2203.05482): networks that learned on from common weights can be averaged, and the average costs no more to
ask than one of them. Of runs that began apart it is worth nothing; hence the figures beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

import mien
from mien.data.manifest import Manifest
from mien.errors import ConfigError, DataError, ModelNotFound
from mien.evaluation.metrics import Scores, score
from mien.files import check_free, digest
from mien.models.network import Network
from mien.models.weights import load_weights, save_weights
from mien.recipe import Recipe, load_recipe
from mien.sections import NetworkSection
from mien.spec import ModelSpec, strict
from mien.training.augment import centre
from mien.training.chips import two_sides
from mien.training.dataset import ChipDataset
from mien.training.ending import held_predictions, held_temperature
from mien.training.origins import learned_rows

__all__ = ["Soup", "soup"]

#: Chips that the norms' statistics are taken from.
_SOME = 4096
_AT_ONCE = 256


@dataclass(frozen=True)
class Soup:
    """path: the weights file.  held: the rows that the first run held out.  scores: of each run and of the average, on these; None where
    these have neither labels nor affect that it answers."""

    path: Path
    held: int
    scores: dict[str, Scores | None]


def soup(
    runs: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    shares: Sequence[float] | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Soup:
    """Average the weights of finished runs into one weights file, with the norms' statistics and the temperature anew.

    runs: two or more run folders, or weights files such as an earlier average, of the same network (but for dropout and frozen stages), labels and crop. The first
        is a run: its chips give the statistics, its held-out rows temperature and scores.
    out: the file, a .safetensors.  shares: of each run, in their order; alike by default. They are scaled to a sum of one.
    Raises ConfigError: fewer than two runs, other networks, shares that are not one positive number a run; DataError: no chips in the
    first run; ModelNotFound (neither; a model file is none), ModelError, OutputError.
    """
    folders, place = [Path(run) for run in runs], Path(out)
    if len(folders) < 2:
        raise ConfigError("soup: expected two or more different runs")
    if place.suffix.lower() != ".safetensors":
        raise ConfigError(f"--out {out}: expected a file that ends in .safetensors")
    weighed = _shares(shares, len(folders))
    check_free(place, overwrite)
    torch.set_num_threads(threads or torch.get_num_threads())
    files = [_weights(folder) for folder in folders]
    if len({file.resolve() for file in files}) < len(files):
        raise ConfigError("soup: expected two or more different runs; one is named twice")
    members = [load_weights(file) for file in files]
    _check_alike(folders, [spec for _, spec in members])
    learn, rows = _sides(folders[0])
    _tell_known(folders, rows, tell)
    held, border = ChipDataset(rows), learn.header.crop.border if learn.header.crop else 0
    mixed = _averaged([network for network, _ in members], weighed)
    some = learn.take(np.linspace(0, len(learn) - 1, min(len(learn), _SOME)).astype(int))
    _norms_anew(mixed, [network for network, _ in members], ChipDataset(some).chips, border)
    specs = [spec for _, spec in members]
    spec = msgspec.structs.replace(
        specs[0],
        temperature=held_temperature(mixed, held, border) if specs[0].expression else 1.0,
        licence="; ".join(dict.fromkeys(part for one in specs for part in one.licence.split("; "))),
        trained_on=(*dict.fromkeys(line for one in specs for line in one.trained_on), *_said(folders, files, weighed)),
        made_by=f"mien {mien.__version__}, mien soup of {len(folders)} runs",
        metrics={},
    )
    asked = [*zip(map(str, folders), members, strict=True), (place.name, (mixed, spec))]
    scores = {name: _scored(network, spec, held, rows, border) for name, (network, spec) in asked}
    save_weights(place, mixed, spec, overwrite)
    return Soup(place, len(rows), scores)


def _tell_known(folders: Sequence[Path], rows: Manifest, tell: Callable[[str], None]) -> None:
    """Which held-out rows taught a run, as far as can be known."""
    learned = learned_rows(*folders)
    known = len(learned.rows & set(rows.ids))
    if learned.doubt:
        tell(learned.doubt)
    if known:
        tell(
            f"{known:,} of the {len(rows):,} held-out rows have taught one of the runs: figures on them flatter, the "
            "temperature comes out too low"
        )


def _weights(run: Path) -> Path:
    file = run if run.suffix.lower() == ".safetensors" and not run.is_dir() else run / "weights.safetensors"
    if not file.is_file():
        raise ModelNotFound(
            f"{run}: no finished run and no weights file (.safetensors), which are what can be averaged"
        )
    return file


def _shares(shares: Sequence[float] | None, count: int) -> list[float]:
    given = [1.0] * count if shares is None else list(shares)
    if len(given) != count or not all(np.isfinite(share) and share > 0 for share in given):
        raise ConfigError(f"--shares: expected {count} positive numbers, one for each run")
    return [share / sum(given) for share in given]


def _check_alike(folders: Sequence[Path], specs: Sequence[ModelSpec]) -> None:
    """Raises ConfigError: labels, crop, affect, or what a network is made of differ."""
    first = _made_of(specs[0])
    for folder, spec in zip(folders[1:], specs[1:], strict=True):
        for what, value in _made_of(spec).items():
            if value != first[what]:
                raise ConfigError(
                    f"{folder}: {what} is {value}, of {folders[0]} {first[what]}; only runs of one network can be averaged"
                )


def _made_of(spec: ModelSpec) -> dict[str, object]:
    section = strict(spec.network, NetworkSection, "network")
    plain = msgspec.structs.replace(section, pretrained=False, dropout=0.0, freeze=0, unfreeze=0)
    parts = {f"network.{name}": value for name, value in msgspec.structs.asdict(plain).items()}
    return {"labels": ", ".join(spec.labels), "crop": spec.crop, "affect": spec.affect} | parts


def _sides(folder: Path) -> tuple[Manifest, Manifest]:
    chips = folder / "chips.parquet"
    if not folder.is_dir():
        raise ConfigError(f"{folder}: a weights file has no chips, which the average needs; give a run first")
    if not chips.is_file():
        raise DataError(f"{folder}: its chips.parquet is gone, which the average needs; give a run that has it first")
    recipe = load_recipe(folder / "recipe.yaml")
    assert isinstance(recipe, Recipe)
    return two_sides(Manifest.read(chips), recipe)


def _averaged(networks: Sequence[Network], shares: Sequence[float]) -> Network:
    """A network with the weighted means of all tensors of numbers with a point; the others are the first one's."""
    states = [network.state_dict() for network in networks]
    mixed: dict[str, Tensor] = {}
    for name, value in states[0].items():
        if value.is_floating_point():
            mixed[name] = torch.stack([s[name] * share for s, share in zip(states, shares, strict=True)]).sum(0)
        else:
            mixed[name] = value.clone()
    result = copy.deepcopy(networks[0])
    result.load_state_dict(mixed)
    return result.eval()


def _norms_anew(network: Network, members: Sequence[Network], chips: Tensor, border: int) -> None:
    """Statistics of the batch norms from these chips: those of averaged weights are not the average of theirs. Norms that are the
    same in all members (of frozen stages) keep theirs."""
    others = [dict(member.named_buffers()) for member in members]
    norms = [
        norm
        for name, norm in network.named_modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and not all(torch.equal(other[f"{name}.running_var"], others[0][f"{name}.running_var"]) for other in others)
    ]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    if norms:
        with torch.no_grad():
            batches = -(-len(chips) // _AT_ONCE)
            for first in range(batches):  # every nth chip: sources and classes lie side by side in a manifest
                network(centre(chips[first::batches], border))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    network.eval()


def _said(folders: Sequence[Path], files: Sequence[Path], shares: Sequence[float]) -> list[str]:
    said = []
    for folder, file, share in zip(folders, files, shares, strict=True):
        said.append(f"averaged from {folder.name} (share {share:.3g}), sha256 {digest(file)[:16]}")
    return said


def _scored(network: Network, spec: ModelSpec, held: ChipDataset, rows: Manifest, border: int) -> Scores | None:
    said = held_predictions(network, spec, held, rows.ids, border)
    try:
        return score(said, rows)
    except DataError:  # no held-out row has what the network answers
        return None
