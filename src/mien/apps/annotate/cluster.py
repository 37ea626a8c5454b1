"""The runner of many machines: actors of Ray Data, each with a child that does blocks."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mien.apps.annotate.job import FOLDER, Done, read_part
from mien.apps.annotate.places import Place, open_place
from mien.apps.annotate.worker import Child, Files, check_seen
from mien.errors import ConfigError, MienError, MissingExtra, OutputError
from mien.files import whole_file

__all__ = ["Actor", "run_ray"]

#: Ray's blocks are as many at most: each holds so many of ours that this suffices.
_TASKS = 10_000


class Actor:
    """What Ray starts on each core: it looks after a process that does the blocks, as the runner of one machine does. Calls with
    numbers of blocks; answers with what their parts hold.
    """

    def __init__(self, out: str) -> None:
        self._out = open_place(out)
        self._job = check_seen(self._out)
        self._child = Child(out, _fetched(self._out, Path(tempfile.gettempdir())))

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        for number, again in zip(batch["block"], batch["again"], strict=True):
            try:
                answer = msgspec.json.encode(self._do(int(number), bool(again)))
            except MienError as error:
                answer = msgspec.json.encode({"error": str(error), "kind": type(error).__name__})
            yield {"answer": [answer]}

    def _do(self, number: int, again: bool) -> Done:
        """The block, unless an actor that died had finished it."""
        done = None if again else read_part(self._out, self._job, number)
        return done or self._child.do(number)


def _shared(out: Place, files: Files) -> None:
    """Put model and detector beside the plan, where every machine finds them."""
    for name, file in (("model.onnx", files.model), ("detector.onnx", files.detector)):
        place = out / FOLDER / name
        if file is not None and not place.exists():
            place.write(Path(file).read_bytes())


def _fetched(out: Place, folder: Path) -> Files:
    """Copies of model and detector on this machine, named by their sha256: all actors share one, as nothing tells them that
    they end. Raises OutputError."""
    found: list[str | None] = []
    for name in ("model.onnx", "detector.onnx"):
        place = out / FOLDER / name
        found.append(_copied(place.read(), folder) if place.exists() else None)
    assert found[0] is not None
    return Files(found[0], found[1])


def _copied(data: bytes, folder: Path) -> str:
    place = folder / f"mien-{hashlib.sha256(data).hexdigest()}.onnx"
    if not place.is_file() or place.read_bytes() != data:
        with whole_file(place, overwrite=True) as part:
            part.write_bytes(data)
    return str(place)


def run_ray(
    out: str,
    numbers: Sequence[int],
    files: Files,
    workers: int | None = None,
    address: str | None = None,
    again: bool = False,
) -> Iterator[Done]:
    """Each block as it is finished, in any order, by actors on the cores of a Ray cluster; what a dead actor had open is done
    again by another.

    workers: actors at most; as many as the cluster has cores by default.  address: of a cluster; by default the one that
    `ray start` began here, or one that lasts as long as this process.  again: even blocks whose parts are there.
    Raises MissingExtra, ConfigError (no cluster answers), and the first error of any actor.
    """
    ray = _connected(address, workers)
    import pyarrow as pa

    data = ray.data.DataContext.get_current()
    data.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    data.print_on_execution_start = False
    share = -(-len(numbers) // _TASKS)
    tables = [
        pa.table({"block": part, "again": [again] * len(part)})
        for part in (numbers[i : i + share] for i in range(0, len(numbers), share))
    ]
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    most = max(1, min(workers or cores, len(tables)))
    _shared(open_place(out), files)
    answers = ray.data.from_arrow(tables).map_batches(
        Actor,
        fn_constructor_args=(out,),
        compute=ray.data.ActorPoolStrategy(size=most, max_tasks_in_flight_per_actor=1),
        batch_size=1,
        num_cpus=1,
    )
    try:
        for found in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from map(_answered, found["answer"].to_pylist())
    except ray.exceptions.RayError as error:
        last = (str(error).strip().splitlines() or ["?"])[-1][:300]
        raise OutputError(f"Ray: {last}; finished parts are kept: give the same command again") from error


def _connected(address: str | None, workers: int | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # mien sends nothing anywhere, nor does what it starts
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its errors come as exceptions
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra.of(f"--runner ray needs {error.name}", "ray") from error
    if ray.is_initialized():
        return ray
    _check_answers(address)
    fresh: dict[str, Any] = {"include_dashboard": False, "num_cpus": workers} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **fresh)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise _no_cluster(address or "this machine", str(error) or type(error).__name__) from error
    return ray


def _check_answers(address: str | None) -> None:
    """Ray itself tries for minutes. Raises ConfigError: nothing answers at HOST:PORT."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address or "", str(error)) from error


def _no_cluster(where: str, why: str) -> ConfigError:
    return ConfigError(
        f"--address: no Ray cluster answers at {where} ({why.splitlines()[0][:160]}); begin one with `ray start --head`"
    )


def _answered(answer: bytes) -> Done:
    found = msgspec.json.decode(answer)
    if "error" in found:
        import mien.errors

        raise getattr(mien.errors, found["kind"], OutputError)(found["error"])
    return msgspec.convert(found, Done)
