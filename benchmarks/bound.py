"""Faces a second from decoded chips to expressions, against the bare session on ready arrays: how much the way there costs.

    python benchmarks/bound.py [MODEL ...] [--threads N] [--seconds S]

A chip is uint8 (height, width, 3) as the crop gives it; an answer is an Expression. The bound is `session.run` alone on float32
arrays that lie ready. All take turns. Goal: 90 % of the bound. On a busy machine read the last column: processor time of the
bound as a share of the processor time of the whole.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from mien.runtime.bench import in_turns, medians, places, shipped
from mien.runtime.classify import Classifier
from mien.runtime.sessions import open_session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 64])
    args = parser.parse_args()
    calls: dict[str, Callable[[], object]] = {}
    lines = {}
    noise = np.random.default_rng(0)
    for place in places(args.models or shipped(), device="cpu"):
        session = open_session(place.file, args.threads, place.engine, place.device)
        classifier, crop = Classifier(session), session.spec.crop
        for batch in args.batch:
            chips = list(noise.integers(0, 256, (batch, crop.height, crop.width, 3), dtype=np.uint8))
            ready = np.ascontiguousarray(np.stack(chips).transpose(0, 3, 1, 2), np.float32)
            name = f"{place.model} | {place.engine} | {batch}"
            calls[f"{name} bound"] = lambda session=session, ready=ready: session.run(ready)
            calls[f"{name} whole"] = lambda classifier=classifier, chips=chips: classifier.read(chips)
            lines[name] = batch
    took = {name: medians(one) for name, one in in_turns(calls, args.seconds).items()}
    print(
        f"| model | engine | batch | session alone, faces/s, {args.threads} threads | chips to expressions | share | share of processor time |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, batch in lines.items():
        bound, whole = took[f"{name} bound"], took[f"{name} whole"]
        rates = f"{1000 * batch / bound[0]:,.0f} | {1000 * batch / whole[0]:,.0f}"
        print(f"| {name} | {rates} | {bound[0] / whole[0]:.0%} | {bound[1] / whole[1]:.0%} |")


if __name__ == "__main__":
    main()
