"""The average of the weights, where a run is short and where it is long."""

import pytest
from drawing import drawn_recipe, trained
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mien.training.loop import Learner, _average


def averaged(steps: int, decay: float) -> float:
    """The average of a weight that is 0 at first and 1 from then on."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    kept = AveragedModel(network, multi_avg_fn=_average(decay), use_buffers=True)
    kept.update_parameters(network)
    nn.init.ones_(network.weight)
    for _ in range(steps):
        kept.update_parameters(network)
    return float(kept.module.weight.detach())


def test_a_short_run_leaves_its_first_weights_behind():
    assert averaged(60, 0.999) > 0.99
    assert averaged(5, 0.999) > 0.9


def test_a_long_run_is_averaged_with_the_decay_asked_for():
    """Once warm, each step shrinks what is left of the past by the decay."""
    before, after = 1 - averaged(10, 0.5), 1 - averaged(12, 0.5)
    assert before > 1e-5
    assert abs(after / before - 0.25) < 0.01


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 6), (4, 2)])
def test_the_average_follows_steps_not_batches(accumulate, steps, drawn, tmp_path, monkeypatch):
    """Six batches an epoch, of which four make a step and the last two another."""
    seen = []
    ended = Learner.on_train_end
    monkeypatch.setattr(Learner, "on_train_end", lambda self: (seen.append(self), ended(self)))
    settings = ["trainer.ema=0.9", "schedule.epochs=1", "trainer.batch=16", f"trainer.accumulate={accumulate}"]
    trained(drawn_recipe(*settings), drawn, tmp_path / "run")
    (learner,) = seen
    assert learner.trainer.global_step == int(learner.averaged.n_averaged) == steps
