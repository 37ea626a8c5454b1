"""What a training step costs on a CPU: with freed memory kept or given back, an optimizer's step in one pass or in several, a
teacher that answers beside it.

python benchmarks/stepping.py [RECIPE] [--batch 64] [--rounds 4]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import torch

from mien.labels import label_set
from mien.models.network import build_network
from mien.recipe import load_recipe
from mien.training.memory import keep_memory


def step(name: str, batch: int, rounds: int) -> str:
    """One thread, bf16, AdamW in one pass: milliseconds an image by the clock, and of these of the system."""
    torch.set_num_threads(1)
    keep_memory()
    recipe = load_recipe(name)
    network = build_network(recipe.network, label_set(recipe.data.labels), recipe.crop).to(
        memory_format=torch.channels_last
    )
    chips = 255 * torch.rand(batch, 3, recipe.crop.height, recipe.crop.width)
    chips = chips.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    for number in range(rounds + 2):
        if number == 2:  # two to warm up
            start, before = time.perf_counter(), os.times()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(chips).logits.float().logsumexp(1).mean()
        loss.backward()
        optimizer.step()
    share = 1000 / (rounds * batch)
    return f"{(time.perf_counter() - start) * share:.1f} | {(os.times().system - before.system) * share:.1f}"


def optimizing(fused: bool, rounds: int) -> float:
    """Seconds of an AdamW step over 50 million parameters, one thread."""
    torch.set_num_threads(1)
    parameters = [torch.nn.Parameter(torch.randn(25_000_000)) for _ in range(2)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(parameters, 1e-4, fused=fused)
    optimizer.step()
    start = time.perf_counter()
    for _ in range(rounds):
        optimizer.step()
    return (time.perf_counter() - start) / rounds


def teaching(name: str, batch: int, rounds: int) -> list[float]:
    """Milliseconds a chip of the recipe's network as a teacher: as it was built, laid out as students are, and compiled so."""
    torch.set_num_threads(1)
    recipe = load_recipe(name)
    network = build_network(recipe.network, label_set(recipe.data.labels), recipe.crop).eval().requires_grad_(False)
    chips = 255 * torch.rand(batch, 3, recipe.crop.height, recipe.crop.width)
    found = [_answering(network, chips, rounds)]
    network, chips = network.to(memory_format=torch.channels_last), chips.contiguous(memory_format=torch.channels_last)
    found.append(_answering(network, chips, rounds))
    network.compile()
    return [*found, _answering(network, chips, rounds)]


def _answering(network: torch.nn.Module, chips: torch.Tensor, rounds: int) -> float:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for number in range(rounds + 2):
            if number == 2:  # two to warm up
                start = time.perf_counter()
            network(chips)
    return 1000 * (time.perf_counter() - start) / (rounds * len(chips))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="fer2013-cnn")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--one", action="store_true", help="one measurement, in this process")
    args = parser.parse_args()
    if args.one:
        print(step(args.recipe, args.batch, args.rounds))
        return
    print("| freed memory | ms an image | of the system |\n|---|---|---|")
    for words, kept in (("given back", "0"), ("kept", "1")):
        command = [
            sys.executable,
            __file__,
            args.recipe,
            "--batch",
            str(args.batch),
            "--rounds",
            str(args.rounds),
            "--one",
        ]
        done = subprocess.run(
            command, env={**os.environ, "MIEN_KEEP_MEMORY": kept}, capture_output=True, text=True, check=True
        )
        print(f"| {words} | {done.stdout.strip()} |")
    print("\n| AdamW, 50 million parameters | s |\n|---|---|")
    for words, fused in (("in several passes", False), ("in one pass", True)):
        print(f"| {words} | {optimizing(fused, args.rounds):.2f} |")
    print("\n| a teacher | ms a chip |\n|---|---|")
    for words, took in zip(
        ("as it was built", "channels last", "compiled"), teaching(args.recipe, args.batch, args.rounds), strict=True
    ):
        print(f"| {words} | {took:.2f} |")


if __name__ == "__main__":
    main()
