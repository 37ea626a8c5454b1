"""From an input to a folder of parts: the job is begun or gone on with, whoever does its blocks."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from os import PathLike, fspath
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec

import mien
from mien.apps.annotate.job import FOLDER, Done, How, Job, finished, locked, start
from mien.apps.annotate.local import run_local
from mien.apps.annotate.places import Place, open_place, whole_address
from mien.apps.annotate.plan import Asked
from mien.apps.annotate.worker import Files, out_text
from mien.errors import ConfigError
from mien.files import digest, path_text
from mien.runtime.detect import check_min_size, detector_path
from mien.runtime.engines import choose
from mien.runtime.forms import files_of
from mien.runtime.sessions import read_spec
from mien.runtime.store import DEFAULT_MODEL, model_file

__all__ = ["Quiet", "Show", "Summary", "annotate"]


class Show(Protocol):
    """What may be shown while an annotation goes on."""

    def planning(self, inputs: int) -> None:
        """So many inputs were found so far."""

    def begins(self, inputs: int, done: int, failed: int) -> None:
        """So many inputs, of which so many were done before, and so many of those could not be read."""

    def seen(self, block: int, number: int) -> None:
        """An input of a block is about to be read."""

    def finished(self, done: Done) -> None:
        """A part is written."""

    def tell(self, words: str) -> None:
        """Something that the user should know."""


class Quiet:
    """Shows nothing."""

    def planning(self, inputs: int) -> None:
        """See Show."""

    def begins(self, inputs: int, done: int, failed: int) -> None:
        """See Show."""

    def seen(self, block: int, number: int) -> None:
        """See Show."""

    def finished(self, done: Done) -> None:
        """See Show."""

    def tell(self, words: str) -> None:
        """See Show."""


class Summary(NamedTuple):
    """What an annotation holds, how many of its blocks were there before, and the processor's seconds it took in all.

    example: an input that could not be read, and why; '' if all could.
    """

    inputs: int
    failed: int
    frames: int
    faces: int
    blocks: int
    before: int
    seconds: float
    example: str = ""


def annotate(
    what: str | PathLike[str],
    out: str | PathLike[str],
    *,
    runner: Literal["local", "ray"] = "local",
    workers: int | None = None,
    address: str | None = None,
    model: str | PathLike[str] = DEFAULT_MODEL,
    detector: str = "auto",
    detector_file: str | PathLike[str] | None = None,
    min_size: float | None = None,
    rate: float = 1.0,
    engine: str = "auto",
    device: str = "auto",
    block: int = 1024,
    column: str = "",
    keep: tuple[str, ...] = (),
    root: str | PathLike[str] = "",
    overwrite: bool = False,
    retry: bool = False,
    show: Show | None = None,
) -> Summary:
    """Annotate a folder, a file, a glob, Parquet files or an address into partitioned Parquet: one row an input (docs/scale.md).

    A job that was stopped goes on: finished parts stay.
    workers, address: see mien.apps.annotate.local and .cluster.  model, detector, engine, device: as in mien.load.  rate:
    frames a second of videos; 0 reads each.  block: inputs a part.
    column, keep, root: of Parquet files: where images or paths are, what to carry over, where relative paths begin.
    overwrite: remove what an earlier annotation left in `out`.  retry: do blocks again in which something could not be read.
    Raises ConfigError, DataError, OutputError, ModelError, MissingExtra; finished parts are kept.
    """
    root = fspath(root)
    if path_text(root) != root:
        raise ConfigError(f"--root {root}: its name is not UTF-8; rename the folder")
    show, place = show or Quiet(), open_place(fspath(out))
    check_min_size(min_size, detector)
    files = _files(model, detector, detector_file)
    how = How(
        model=str(model), model_hash=_hash(files.model), detector=detector, detector_hash=_hash(files.detector),
        min_size=min_size, rate=rate, engine=engine, device=device,
    )  # fmt: skip
    asked = Asked(input=whole_address(fspath(what)), block=block, column=column, keep=keep, root=whole_address(root))
    choose(engine, device, files.model)
    labels = read_spec(files.model).labels
    if runner == "ray" and not files.model.lower().endswith(".onnx"):
        raise ConfigError(f"{model}: only .onnx files travel to other machines; give one to --runner ray")
    with locked(place):
        job = start(place, asked, how, labels, f"mien {mien.__version__}", overwrite, show.planning, show.tell)
        before = finished(place, job, retry, told=show.tell)
        show.begins(job.inputs, sum(d.inputs for d in before.values()), sum(d.failed for d in before.values()))
        parts = list(before.values())
        with closing(_run(runner, place, job, before, files, workers, address, retry, show)) as moving:
            for done in moving:
                show.finished(done)
                parts.append(done)
        return _summed(place, parts, len(before))


def _files(model: str | PathLike[str], detector: str, detector_file: str | PathLike[str] | None) -> Files:
    found = detector_path(detector, detector_file)
    return Files(str(Path(model_file(model)).resolve()), None if found is None else str(found.resolve()))


def _hash(file: str | None) -> str:
    """The sha256 of a model file, with the file beside it that is a part of it; '' where there is none."""
    files = [] if file is None else files_of(Path(file))
    return digest(*files) if files else ""


def _run(
    runner: str,
    out: Place,
    job: Job,
    before: dict[int, Done],
    files: Files,
    workers: int | None,
    address: str | None,
    retry: bool,
    show: Show,
) -> Generator[Done, None, None]:
    numbers = [number for number in range(job.blocks) if number not in before]
    if not numbers:
        return
    if runner == "ray":
        from mien.apps.annotate.cluster import run_ray

        yield from run_ray(out_text(out), numbers, files, workers, address, retry)
    else:
        yield from run_local(out_text(out), numbers, files, workers, show.seen)


def _summed(out: Place, parts: list[Done], before: int) -> Summary:
    inputs, failed, frames, faces = (
        sum(getattr(done, name) for done in parts) for name in ("inputs", "failed", "frames", "faces")
    )
    seconds = sum(done.seconds for done in parts)
    example = next((done.example for done in sorted(parts, key=lambda done: done.block) if done.example), "")
    summary = Summary(inputs, failed, frames, faces, len(parts), before, seconds, example)
    (out / FOLDER / "summary.json").write(msgspec.json.format(msgspec.json.encode(summary._asdict()), indent=2))
    return summary
