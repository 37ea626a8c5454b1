"""What a source notices while it reads: rows left out, by reason, and warnings. It ends in the manifest's header."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mien.data.manifest import Header
from mien.data.sources.card import Card

__all__ = ["Notes"]


@dataclass(slots=True)
class Notes:
    """A notebook for one reading; its header is right once the samples were consumed."""

    left_out: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def leave(self, reason: str, rows: int = 1) -> None:
        """Count rows that are left out for this reason."""
        self.left_out[reason] += rows

    def warn(self, text: str) -> None:
        """Keep a warning for the reader of the manifest; the same words stand there once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def header(self, card: Card, labels: tuple[str, ...] | None = None, rule: str = "") -> Header:
        """The header of a manifest from this source."""
        return Header(
            source=card.name,
            labels=card.labels if labels is None else labels,
            rule=rule,
            licence=card.licence,
            framing=card.framing,
            left_out=dict(self.left_out),
            warnings=tuple(self.warnings),
        )
