"""The vocabulary of expressions: label sets, every dataset's integer codes, and moving between sets.

Inside mien an expression has a name, never a number. Integer codes exist only in the files of the
datasets; a dataset source turns them into names with `CODES` and they go no further.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mien.errors import ConfigError, near_miss

__all__ = ["AFFECT_MEANS", "CODES", "KNOWN_SETS", "LabelSet", "affect_means", "label_set"]

#: Mean (valence, arousal) of AffectNet's validation annotations, 500 images a class.
#: Mollahosseini et al., "AffectNet", IEEE TAC 2017, arXiv:1708.03985 (the annotations; the means are ours).
AFFECT_MEANS: dict[str, tuple[float, float]] = {
    "neutral": (-0.03, -0.02),
    "happiness": (0.67, 0.08),
    "sadness": (-0.63, -0.27),
    "surprise": (0.18, 0.70),
    "fear": (-0.12, 0.76),
    "disgust": (-0.68, 0.45),
    "anger": (-0.43, 0.55),
    "contempt": (-0.51, 0.58),
}

#: Label sets by name, in AffectNet's order.
KNOWN_SETS: dict[str, tuple[str, ...]] = {
    "affectnet8": tuple(AFFECT_MEANS),
    "affectnet7": tuple(AFFECT_MEANS)[:7],
    "polarity3": ("neutral", "happiness", "sadness"),
}

#: What the integers mean in each dataset: position = code. None is no expression (a reject, a non-face).
CODES: dict[str, tuple[str | None, ...]] = {
    "affectnet": (*tuple(AFFECT_MEANS), None, None, None),
    "fer2013": ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"),
    "ferplus": ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", None, None),
    "rafdb": (None, "surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
    "expw": ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"),
    "abaw": ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other"),
    "affectnet-hq": ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
}


@dataclass(frozen=True, slots=True)
class LabelSet:
    """An ordered set of expression names; the order is the order of every probability vector.

    >>> labels = LabelSet(("neutral", "happiness"))
    >>> labels.index("happiness"), len(labels), list(labels)
    (1, 2, ['neutral', 'happiness'])

    Raises ConfigError for fewer than two names, an empty name or a repeated one, or a text.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise ConfigError(
                f"labels: expected several names, got the text {self.names!r}; label_set() takes names of sets"
            )
        object.__setattr__(self, "names", tuple(self.names))
        if len(self.names) < 2:
            raise ConfigError(f"labels: a label set needs at least two names, got {list(self.names)}")
        if not all(isinstance(n, str) for n in self.names):
            raise ConfigError(f"labels: names must be texts, got {list(self.names)}")
        if len(set(self.names)) != len(self.names) or not all(self.names):
            raise ConfigError(f"labels: names must be distinct and not empty, got {list(self.names)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def index(self, name: str) -> int:
        """The position of a name. Raises ConfigError, with the nearest known name, if it is not in the set."""
        if name not in self.names:
            raise ConfigError(f"labels: unknown label {name!r}; {near_miss(str(name), self.names)}")
        return self.names.index(name)

    def onehot(self, name: str) -> np.ndarray:
        """The (c,) float32 distribution that puts everything on one name."""
        target = np.zeros(len(self), np.float32)
        target[self.index(name)] = 1.0
        return target

    def project(self, probabilities: np.ndarray, onto: LabelSet) -> np.ndarray:
        """Move (n, c) probabilities onto another set: reorder, drop absent columns, renormalise.

        Classes that only `onto` has get probability 0. A row whose kept probabilities are all zero becomes NaN:
        it said nothing about the classes asked for. Raises ConfigError for a shape that is not (n, c).

        >>> eight, seven = label_set("affectnet8"), label_set("affectnet7")
        >>> eight.project(np.full((1, 8), 1 / 8), seven).round(3).tolist()
        [[0.143, 0.143, 0.143, 0.143, 0.143, 0.143, 0.143]]
        """
        probabilities = np.asarray(probabilities)
        if probabilities.ndim != 2 or probabilities.shape[1] != len(self):
            raise ConfigError(
                f"labels: probabilities of shape {probabilities.shape} for {len(self)} labels; expected (n, {len(self)})"
            )
        moved = np.zeros((len(probabilities), len(onto)), probabilities.dtype)
        for column, name in enumerate(onto):
            if name in self:
                moved[:, column] = probabilities[:, self.index(name)]
        total = moved.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 0, moved / total, np.nan)


def label_set(labels: str | Sequence[str] | LabelSet) -> LabelSet:
    """A label set from the name of a known one, or from its names.

    >>> label_set("polarity3").names
    ('neutral', 'happiness', 'sadness')
    """
    if isinstance(labels, LabelSet):
        return labels
    if isinstance(labels, str):
        if labels not in KNOWN_SETS:
            raise ConfigError(f"labels: unknown label set {labels!r}; {near_miss(labels, KNOWN_SETS)}")
        return LabelSet(KNOWN_SETS[labels])
    return LabelSet(tuple(labels))


def affect_means(labels: LabelSet) -> np.ndarray:
    """The (c, 2) float32 matrix of mean (valence, arousal) per class; NaN where a label has no known mean."""
    unknown = (np.nan, np.nan)
    return np.array([AFFECT_MEANS.get(name, unknown) for name in labels], np.float32)
