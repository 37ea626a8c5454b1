"""Several processes, as a person or a cluster starts them: torchrun and the verb."""

import os
import subprocess
import sys

import torch
from drawing import drawn_recipe, figures, trained

from mien.models.weights import load_weights
from mien.recipe import recipe_text

TINY = ["network={backbone: mlp, pool: flatten, channels: 3, hidden: [16]}", "augment={flip: 0}", "schedule.epochs=1",
        "optimizer={name: sgd, lr: 0.01, momentum: 0.9, decay: 0}"]  # fmt: skip


def test_torchrun_trains_through_the_verb(drawn, tmp_path):
    """Two processes with half a batch each give what one gives with the whole; only the first says so."""
    one = trained(drawn_recipe(*TINY, "trainer={batch: 32, ema: 0}"), drawn, tmp_path / "one")
    (tmp_path / "two.yaml").write_text(recipe_text(drawn_recipe(*TINY, "trainer={batch: 16, ema: 0}")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29533"]
    verb = ["-m", "mien", "train", tmp_path / "two.yaml", "--data", drawn, "--out", tmp_path / "two", "--threads", "1"]
    settings = ["--set", "trainer.devices=2", "--set", "trainer.strategy=ddp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *map(str, verb), *settings], capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(f"weights: {tmp_path / 'two' / 'weights.safetensors'}") == 1
    assert (tmp_path / "two" / "report.html").is_file()
    a, b = (load_weights(path)[0].state_dict() for path in (one, tmp_path / "two" / "weights.safetensors"))
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)
    first, second = (float(figures(tmp_path / run)[0]["val/loss"]) for run in ("one", "two"))
    assert abs(first - second) < 1e-3
