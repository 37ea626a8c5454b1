"""Several processes, as a person or a cluster starts them: torchrun and the verb."""

import os
import subprocess
import sys

import pytest
import torch
from drawing import drawn_recipe, figures, trained

from mien.models.weights import load_weights
from mien.recipe import recipe_text
from mien.sections import TrainerSection
from mien.training.folder import rank_here

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


SRUN = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "MASTER_ADDR": "127.0.0.1"}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "devices", "rank"),
    [
        ({}, 2, 0),
        ({"LOCAL_RANK": "1"}, 2, 1),
        ({"RANK": "5", "LOCAL_RANK": "1"}, 8, 5),
        ({**SRUN, "SLURM_PROCID": "1"}, 2, 1),
        ({**SRUN, "SLURM_PROCID": "1", "RANK": "0"}, 2, 0),
        ({**SRUN, "SLURM_PROCID": "1"}, 1, 0),
        ({**SRUN, "SLURM_JOB_NAME": "bash", "SLURM_PROCID": "1"}, 2, 0),
        ({**SRUN, "SLURM_JOB_NAME": "interactive", "SLURM_PROCID": "0", "LOCAL_RANK": "1"}, 2, 1),
    ],
)
def test_a_process_knows_its_number(told, devices, rank, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_") or name in {"RANK", "LOCAL_RANK"}]:
        monkeypatch.delenv(name)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert rank_here(TrainerSection(devices=devices)) == rank


def test_srun_trains_and_resumes_through_the_verb(drawn, tmp_path):
    """Two tasks as SLURM starts them: one makes and claims the folder, both train, one speaks; then both go on with it."""
    (tmp_path / "two.yaml").write_text(
        recipe_text(drawn_recipe(*TINY, "trainer={batch: 16, ema: 0, devices: 2, strategy: ddp}"))
    )
    verb = ["mien", "train", tmp_path / "two.yaml", "--data", drawn, "--out", tmp_path / "run", "--threads", "1"]
    weights = tmp_path / "run" / "weights.safetensors"

    def srun(port, *more):
        environment = {**os.environ, **SRUN, "OMP_NUM_THREADS": "1", "MASTER_PORT": port}
        tasks = [
            subprocess.Popen(
                [sys.executable, "-m", *map(str, verb), *more],
                env={**environment, "SLURM_PROCID": number, "SLURM_LOCALID": number},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in "01"
        ]
        ends = [task.communicate(timeout=240) for task in tasks]
        assert [task.returncode for task in tasks] == [0, 0], ends
        assert [out.count(f"weights: {weights}") for out, _ in ends] == [1, 0]

    srun("29534")
    said = weights.read_bytes()
    weights.unlink()
    srun("29535", "--resume")
    assert weights.read_bytes() == said
    assert not list((tmp_path / "run").glob(".*"))
