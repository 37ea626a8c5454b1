"""Optimizers by name, their rates over time, and which parameters learn how fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mien.sections import OptimizerSection, ScheduleSection

__all__ = ["Sam", "build_optimizer", "parameter_groups", "rate_at"]


def build_optimizer(learner: Any, section: OptimizerSection) -> torch.optim.Optimizer:
    """The optimizer over a learner's `network` and the parameters of its loss."""
    groups = parameter_groups(learner, section)
    fused = all(p.device.type == "cpu" for group in groups for p in group["params"]) or None  # one pass: 6 times faster
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": lambda p: torch.optim.SGD(p, section.lr, section.momentum, nesterov=section.momentum > 0, fused=fused),
        "adam": lambda p: torch.optim.Adam(p, section.lr, fused=fused),
        "adamw": lambda p: torch.optim.AdamW(p, section.lr, fused=fused),
    }
    base = kinds[section.name](groups)
    if fused:  # Lightning refuses to clip for such optimizers, which a gradient scaler would forbid; CPUs have none
        base._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return Sam(base, section.sam) if section.sam else base


def parameter_groups(learner: Any, section: OptimizerSection) -> list[dict[str, Any]]:
    """Groups by rate and decay: weight decay for matrices and kernels, none for biases and norms; the backbone's rate times
    `backbone`, and times `layers` for each stage further from its end. Frozen parameters belong too: they may be released.
    """
    network, groups = learner.network, []
    rates = _rates(network, section)
    for rate in dict.fromkeys(rates.values()):
        members = [p for p in network.parameters() if rates[id(p)] == rate]
        for decays in (True, False):
            chosen = [p for p in members if (p.ndim > 1) == decays]
            if chosen:
                groups.append({"params": chosen, "lr": section.lr * rate, "weight_decay": section.decay * decays})
    loss = getattr(learner, "loss", None)
    own = list(loss.parameters()) if isinstance(loss, nn.Module) else []
    return groups + ([{"params": own, "lr": section.lr, "weight_decay": 0.0}] if own else [])


def _rates(network: Any, section: OptimizerSection) -> dict[int, float]:
    rates = {id(p): 1.0 for p in network.parameters()}
    backbone = getattr(network, "backbone", None)
    if backbone is None:
        return rates
    for below, stage in enumerate(reversed(backbone.stages)):
        for p in stage.parameters():
            rates[id(p)] = section.backbone * section.layers**below
    return rates


def rate_at(schedule: ScheduleSection, step: int, steps: int) -> float:
    """The share of the largest learning rate at a step of `steps`."""
    warm = steps * schedule.warmup / schedule.epochs
    if step < warm:
        start = 0.04 if schedule.name == "one-cycle" else 0.0
        return start + (1 - start) * (step + 1) / (warm + 1)
    if schedule.name == "step":
        return schedule.factor ** (step * schedule.epochs // max(1, steps) // schedule.every)
    if schedule.name in {"constant", "plateau"}:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1.0, steps - warm))))


class Sam(torch.optim.Optimizer):
    """Sharpness-aware minimisation around another optimizer (Foret et al. 2021, arXiv:2010.01412).

    `step` calls its closure twice: at the weights, and `radius` up the gradient; the base steps by the second gradient.
    """

    def __init__(self, base: torch.optim.Optimizer, radius: float) -> None:
        self.base, self.radius = base, radius
        super().__init__(base.param_groups, base.defaults)
        self.param_groups = base.param_groups
        self.state = base.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Raises RuntimeError without a closure."""
        if closure is None:
            raise RuntimeError("sharpness-aware minimisation needs a closure")
        with torch.enable_grad():
            loss = closure()
        moved = self._climb()
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for p, by in moved:
                p.sub_(by)
        self.base.step()
        return loss

    @torch.no_grad()
    def _climb(self) -> list[tuple[Tensor, Tensor]]:
        with_gradient = [p for p in self._parameters() if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in with_gradient if p.grad is not None]).norm().clamp(min=1e-12)
        moved = [(p, p.grad * (self.radius / norm)) for p in with_gradient if p.grad is not None]
        for p, by in moved:
            p.add_(by)
        return moved

    def _parameters(self) -> Iterable[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self.param_groups, self.state = self.base.param_groups, self.base.state
