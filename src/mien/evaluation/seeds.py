"""Runs of one recipe that differ by their seed: what the recipe gives, and how far chance moves it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from mien.errors import ConfigError
from mien.evaluation.judgement import Judgement
from mien.recipe import DetectorRecipe, Recipe, read_recipe

__all__ = ["SeedGroup", "across_seeds"]


class SeedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one recipe from one start, each with a seed of its own.

    models, seeds: the runs, in the order of their seeds.  means, deviations: by measure, over the runs; the deviation is the
    sample's (n - 1).
    """

    recipe: str
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    means: dict[str, float]
    deviations: dict[str, float]


def across_seeds(judgements: Sequence[Judgement], figures: Sequence[dict[str, float]]) -> tuple[SeedGroup, ...]:
    """Of each recipe that several of the judged runs followed, with other seeds: means and deviations.

    figures: of each judged model, by measure.  What counts as one recipe: every setting in the run's `recipe.yaml` but for seed
    and `about`, and the same rows, weights and teachers to begin with. Model files and tables have no recipe beside them. Of
    runs with the same seed the first counts.
    """
    groups: dict[tuple[bytes, str], dict[int, int]] = {}
    for place, one in enumerate(judgements):
        recipe = _recipe(one)
        if recipe is not None:
            plain = msgspec.json.encode(msgspec.structs.replace(recipe, seed=0, about=""))
            groups.setdefault((plain, one.made.get("model, trained on", "")), {}).setdefault(recipe.seed, place)
    return tuple(
        _summed(msgspec.json.decode(plain)["name"], dict(sorted(group.items())), judgements, figures)
        for (plain, _), group in groups.items()
        if len(group) > 1
    )


def _summed(
    recipe: str, places: dict[int, int], judgements: Sequence[Judgement], figures: Sequence[dict[str, float]]
) -> SeedGroup:
    rows = {name: [figures[place][name] for place in places.values()] for name in figures[0]}
    return SeedGroup(
        recipe=recipe,
        models=tuple(judgements[place].model for place in places.values()),
        seeds=tuple(places),
        means={name: float(np.mean(values)) for name, values in rows.items()},
        deviations={name: float(np.std(values, ddof=1)) for name, values in rows.items()},
    )


def _recipe(one: Judgement) -> Recipe | DetectorRecipe | None:
    """The recipe that a run's judgement quotes; None where there is none that this mien can read."""
    text = one.made.get("model, recipe")
    try:
        return None if text is None else read_recipe(text, one.model)
    except ConfigError:
        return None
