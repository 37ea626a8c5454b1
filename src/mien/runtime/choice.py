"""Which engine runs a model, and on what."""

from __future__ import annotations

import msgspec

__all__ = ["Choice"]


class Choice(msgspec.Struct, frozen=True):
    """Which engine runs a model, where, and why: to be printed.

    fallen: a card was there and did not start, so that the CPU runs it.
    """

    engine: str
    device: str
    reason: str
    fallen: bool = False

    def __str__(self) -> str:
        return f"{self.engine} on {self.device}: {self.reason}"

    @property
    def card(self) -> int:
        """The number of the card of a device such as 'cuda:1'; 0 without a number."""
        return int(self.device.partition(":")[2] or 0)
