"""mien watch: the faces of a video, a stream, a folder of pictures or a camera, frame by frame."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace

from mien.cli.asked import Asked, check_kind, seconds_of, timeline
from mien.cli.options import Device, Engine, check_output, tell_choice
from mien.cli.seen import Seen, began, display, stopped_as_by_ctrl_c, summary, total
from mien.errors import ConfigError, OutputError, VideoError
from mien.files import beside, digest

if TYPE_CHECKING:
    from mien.faces import Face, Frame
    from mien.runtime.read import Reader
    from mien.runtime.resume import Bookmark, Progress
    from mien.runtime.watch import Watching


def watch(
    source: Annotated[
        str, typer.Argument(help="A video file, a folder of pictures, an address, or a camera's number.")
    ],
    table: Annotated[
        Path | None, typer.Option(help="Table (.csv, .jsonl or .parquet): a row a face and frame.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Annotated video (.mp4), with the sound of the original.")] = None,
    subtitles: Annotated[Path | None, typer.Option(help="Subtitles (.srt or .vtt).")] = None,
    report: Annotated[Path | None, typer.Option(help="Timeline of every person (.html).")] = None,
    thumbnails: Annotated[bool, typer.Option("--thumbnails", help="Faces in the report.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace outputs that exist.")] = False,
    model: Annotated[str, typer.Option(help="A model's name or file.")] = "ferplus-small",
    detector: Annotated[str, typer.Option(help="auto (mien-face), mien-face, yunet or whole.")] = "auto",
    detector_file: Annotated[Path | None, typer.Option(help="A local detector file in YuNet's form.")] = None,
    begin: Annotated[str, typer.Option("--from", help="Where to begin: seconds or h:mm:ss.")] = "0",
    end: Annotated[str | None, typer.Option("--to", help="Where to end: seconds or h:mm:ss.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Read each Nth frame.")] = 1,
    look: Annotated[
        float,
        typer.Option(
            min=0, max=3600, help="Look for faces every so many seconds and follow them between; 0: every frame."
        ),
    ] = 0.0,
    smooth: Annotated[
        float, typer.Option(min=0, max=3600, help="Average each person's answers over so many seconds; 0: as read.")
    ] = 0.3,
    min_size: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Look for faces from this size on, pixels; slower, and finds more that are none. Smaller ones are left out.",
        ),
    ] = None,
    max_faces: Annotated[int | None, typer.Option(min=1, help="Only so many faces a frame, the largest.")] = None,
    blur_faces: Annotated[
        bool, typer.Option("--blur-faces", help="Make faces unrecognisable in --save; no sound.")
    ] = False,
    audio: Annotated[bool | None, typer.Option(help="Keep the sound in --save.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=1000, help="Frames a second of a folder of pictures; 25 by default.")
    ] = None,
    patience: Annotated[
        float | None, typer.Option(min=0, help="Seconds to try again when a stream dies; 30 by default.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, not where a killed run stopped.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each engine.")] = None,
    engine: Engine = "auto",
    device: Device = "auto",
) -> None:
    """Read a video, a stream or a camera. Ctrl-C ends it, keeps what was written and counts as success.

    A run that was killed goes on where it stopped: give the same command again.
    Exit code 1 if the video was cut off or damaged (what was decoded is kept) or an output could not be written (the others
    are), 2 if nothing could be.
    """
    asked = Asked(source, table, save, subtitles, report, overwrite, blur_faces)
    span = (seconds_of(begin, "--from") or 0.0, seconds_of(end, "--to"))
    asked.check(span, fresh)
    check_output({"--thumbnails": thumbnails}, report, "--report")
    check_output({"--blur-faces": blur_faces, "--audio": audio}, save, "--save")
    if blur_faces and look:
        raise ConfigError(
            "--look: leaves who newly appears visible until the next look; leave it out with --blur-faces"
        )
    from mien.runtime.read import load
    from mien.runtime.watch import Watching
    from mien.vision.video import is_live, video_info

    check_kind(asked.place, rate, patience, thumbnails)
    rate, patience = 25.0 if rate is None else rate, 30.0 if patience is None else patience
    info = video_info(asked.place, rate)
    if info.tracks > 1:
        _tell(f"{source}: has {info.tracks} tracks of pictures; the first is read ({info.width}x{info.height})")
    live = is_live(asked.place, info)
    least = None if detector == "whole" else min_size  # which looks for none; smaller ones are left out all the same
    reader = load(model, detector, threads or _share(), detector_file, least, engine=engine, device=device)
    how = Watching(look, max_faces, min_size, smooth, live, step=0.0 if live else _first_step(every, info.rate))
    facts = {"model": reader.classifier.spec.name, "detector": [detector, str(detector_file), min_size], "every": every,
             "span": span, "look": look, "smooth": smooth, "faces": max_faces, "rate": rate, "blur": blur_faces,
             "save": str(save), "engine": [*_file_facts(model, detector, detector_file), *tell_choice(reader)]}  # fmt: skip
    with asked.alone():
        run = _Run(reader, how, asked, every, span, rate, patience)
        run.resume(fresh, facts)
        sound = not blur_faces if audio is None else audio
        run.open(facts, info.rate / every, sound and info.audio and not live)
        with nullcontext() if run.bookmark else stopped_as_by_ctrl_c():
            run.go(display(asked.place, total(info, every, span)))
            if run.seen.read:
                summary(reader, run.seen)
            run.derive(thumbnails and not blur_faces)
    _tell_end(run)


def _tell_end(run: _Run) -> None:
    """What was written, and what went wrong. Raises typer.Exit."""
    seen, not_now = run.seen, {*run.failed, *run.made}
    written = [path for path in run.asked.outputs() if seen.frames and path.exists() and path not in not_now]
    for path in written:
        print(f"written: {path}")
    if seen.problem:
        kept = "; what was decoded is kept" if seen.frames else ""
        print(f"mien: {seen.problem}{kept}", file=sys.stderr)
    for words in run.troubles(bool(written)):
        print(f"mien: error: {words}", file=sys.stderr)
    if run.failed or seen.problem:
        raise typer.Exit(1 if written or (seen.frames and not run.failed) else 2)


def _first_step(every: int, rate: float) -> float:
    """Seconds that the first step may last. Each Nth frame lies as far apart as it does: headers often give another rate."""
    return math.inf if every > 1 else 1 / rate


def _share() -> int:
    """Threads of each engine: stages run beside each other, so each gets a part of the cores."""
    from mien.runtime.machine import cores

    return max(1, cores() // 3)


def _file_facts(model: str, detector: str, file: Path | None) -> list[str]:
    """The sha256 of model and detector: another one of the same name gives other rows."""
    from mien.runtime.detect import detector_path
    from mien.runtime.forms import files_of
    from mien.runtime.store import model_file

    place = detector_path(detector, file)
    return [digest(*files_of(model_file(model))), *([] if place is None else [digest(place)])]


class _NothingNewError(Exception):
    """A run that was to go on ended before its first new frame; what the earlier one finished stays as it is."""


class _Run:
    """One reading: its sinks, how far it came, and what it leaves behind if it is stopped."""

    def __init__(
        self, reader: Reader, how: Watching, asked: Asked, every: int, span: Any, rate: float, patience: float
    ) -> None:
        from mien.runtime.watch import Memory

        self.reader, self.how, self.asked = reader, how, asked
        self.memory = Memory(how, hiding=asked.blurred)
        self._every, self._span, self._rate, self._patience = every, span, rate, patience
        self.seen = Seen()
        self.bookmark: Bookmark | None = None
        self.progress: Progress | None = None
        self._table: Any = None
        self._video: Any = None
        self._last: Frame | None = None
        self._opened = False
        self._broken: Any = None
        self._damaged: list[tuple[float, float]] = []
        self.failed: dict[Path, OutputError] = {}
        self.made: set[Path] = set()

    def resume(self, fresh: bool, facts: dict[str, Any]) -> None:
        """Find out whether an earlier run of the same command was stopped."""
        from mien.runtime.resume import Bookmark, key_of

        rows, place = self.asked.rows, self.asked.place
        if rows is None or isinstance(place, int) or not Path(place).is_file():
            return self.asked.check_free(None)
        self.bookmark = Bookmark(rows, key_of(Path(place), facts))
        found = None if fresh else self.bookmark.read()
        made = self.asked.made(found)
        self.asked.check_free(found)
        part = beside(rows, ".part")
        if found is None or (rows not in made and not (part.is_file() and part.stat().st_size >= found.size)):
            return self.asked.check_free(None)
        if self.asked.save not in made and self._saved(found.start, found.seconds) != found.video:
            _tell(f"{self.asked.save}: parts that an earlier run saved are gone or altered; beginning anew")
            return self.asked.check_free(None)
        self.progress, self.made = found, made
        self.seen.frames, self.seen.faces, self.seen.problem = found.frames, found.faces, found.problem
        self._damaged = found.damaged
        if found.ended:
            missing = ", ".join(str(path) for path in self.asked.outputs() if path not in made)
            _tell(f"an earlier run read all; making what it did not: {missing} (--fresh begins anew)")
            return None
        self.memory.restore(found.state)
        _tell(f"going on at {found.seconds:.1f} s, where an earlier run stopped (--fresh begins anew)")
        return None

    def _keep(self, what: str) -> None:
        """What a reading left that this one cannot go on with gets names of its own. Raises OutputError."""
        from mien.runtime.left import keep_rows, keep_video
        from mien.runtime.resume import Bookmark

        asked = self.asked
        rows = None if asked.rows is None else keep_rows(asked.rows, asked.outputs()[0])
        if asked.rows is not None:
            Bookmark(asked.rows).remove()
        for kept in (rows, None if asked.save is None else keep_video(asked.save)):
            if kept is not None:
                _tell(f"{kept}: {what}")

    def _saved(self, start: float | None, seconds: float) -> int:
        """Bytes of the parts of the saved video that begin by this time."""
        if self.asked.save is None or start is None:
            return 0
        from mien.runtime.copy import parts_of

        return sum(part.stat().st_size for part in parts_of(self.asked.save, start, seconds))

    def open(self, facts: dict[str, Any], rate: float, sound: bool) -> None:
        """The sinks of files. Raises ConfigError, OutputError."""
        from mien.runtime.sinks import TableSink, VideoSink

        asked, going, lasting = self.asked, self.progress, self.bookmark is not None
        if asked.rows is not None:
            spec = self.reader.classifier.spec
            hidden = asked.table is None
            self._table = TableSink(
                asked.rows, spec.labels, asked.overwrite or hidden or asked.rows in self.made, asked.source, spec.name, facts["smooth"],
                None if going is None else going.size, lasting, bool(self.how.live),
            )  # fmt: skip
        if asked.save is not None:
            self._video = VideoSink(
                asked.save, rate, asked.overwrite or asked.save in self.made, self.reader.times, asked.source if sound else None, asked.blurred,
                self.memory.hidden if asked.blurred else None,
                None if going is None else going.start, lasting, self._span[1], bool(self.how.live),
            )  # fmt: skip
            if going is not None:
                self._video.after(going.seconds)

    def go(self, display: Any) -> None:
        """Feed every frame to every sink, to the end of the source, its breaking or Ctrl-C."""
        try:
            with ExitStack() as stack:
                self._feed(stack, display)
        except _NothingNewError as stop:
            self.seen.frames = self.seen.faces = 0
            self.seen.problem = str(stop)
            return
        except KeyboardInterrupt:
            print(f"mien: interrupted after {self.seen.frames} frames; what was written is kept", file=sys.stderr)
        except VideoError as error:
            self.seen.problem = str(error)
        except OutputError as error:
            if not self._alone():
                raise self._stopped(error) from error
            self.failed[self._broken.path] = error
        if self._video is not None and self._video.silent:
            print(f"mien: {self.asked.save}: has no sound: {self._video.silent}", file=sys.stderr)
        if self.how.live and self.failed:
            try:
                self._keep("what was read so far")
            except OutputError as error:
                _tell(str(error))
        elif self._opened and not (self.failed and self._kept()):
            self._forget_parts()

    def _feed(self, stack: ExitStack, display: Any) -> None:
        try:
            moving = self._begun()
            if self.how.live:
                self._keep("what an earlier run read before it was killed")
            elif self.bookmark is not None and self.progress is None:
                self.bookmark.remove()  # of another command, whose part is written over now
            self._opened = True
            files = [sink for sink in (self._table, self._video) if sink is not None and sink.path not in self.made]
            for sink in files:
                self._enter(stack, sink)
            sinks = [*files, stack.enter_context(display)]
            stack.push(self._end)
            for frame, faces in moving:
                self._write(sinks, frame, faces)
        except KeyboardInterrupt:
            if self.progress is None or self.seen.read:
                raise
            at = f"the same command goes on at {self.progress.seconds:.1f} s"
            print(f"mien: interrupted before anything new was read; {at}", file=sys.stderr)
            raise _NothingNewError from None

    def _enter(self, stack: ExitStack, sink: Any) -> None:
        """Open a sink of a file; what goes wrong when it is finished does not keep the others from being finished."""

        def leave(kind: Any, error: BaseException | None, trace: Any) -> None:
            alone = isinstance(error, OutputError) and self._alone() and sink is not self._broken
            try:
                sink.__exit__(*(None, None, None) if alone else (kind, error, trace))
                self._note(sink.path)
            except OutputError as problem:
                self.failed[sink.path] = problem
            except KeyboardInterrupt:
                self.failed[sink.path] = OutputError(f"{sink.path}: was interrupted before it was finished")

        sink.__enter__()
        stack.push(leave)

    def _alone(self) -> bool:
        """Whether an output broke in the middle of a source that cannot be gone on with: the others are finished there."""
        return self._broken is not None and self.bookmark is None

    def _kept(self) -> Progress | None:
        """How far this reading can be gone on with."""
        return None if self.bookmark is None else self.bookmark.read()

    def _forget(self) -> None:
        """Nothing is gone on with."""
        if self.bookmark is not None:
            self.bookmark.remove()
        self._forget_parts()

    def _forget_parts(self) -> None:
        """The table and the saved video are there, or nothing is gone on with."""
        for sink in (self._table, self._video):
            if sink is not None:
                sink.forget()

    def _begun(self) -> Iterator[tuple[Frame, list[Face]]]:
        """The frames with their faces, once there is a first one: a source that gives none makes and replaces no output."""
        if self.progress is not None and self.progress.ended:
            return iter(())
        if self.progress is not None:
            return self._going_on()
        moving = self._frames()
        first = next(moving, None)
        if first is None:
            begin, end = self._span
            raise VideoError(
                f"{self.asked.source}: no frame {f'between {begin:g} and {end:g}' if end else f'from {begin:g}'} s"
            )
        return chain([first], moving)

    def _going_on(self) -> Iterator[tuple[Frame, list[Face]]]:
        """The frames with their faces, once the last one of the earlier run was found again."""
        try:
            return self._frames()
        except VideoError as error:
            raise _NothingNewError(f"{error}; what the earlier run finished is kept (--fresh begins anew)") from error

    def _write(self, sinks: Sequence[Any], frame: Frame, faces: list[Face]) -> None:
        with self.reader.times.stage("write"):
            for sink in sinks:
                self._broken = sink
                sink.write(frame, faces)
        self._broken = None
        if self.how.live and self._last is None:
            _tell(f"{self.asked.source}: second 0 is {began(frame)}")
        elif self.how.live and self._last is not None:
            self.seen.gone += (frame.index - self._last.index) // self._every - 1
        self._last = frame
        self.seen.frames, self.seen.faces = self.seen.frames + 1, self.seen.faces + len(faces)
        self.seen.read += 1

    def _frames(self) -> Iterator[tuple[Frame, list[Face]]]:
        from mien.runtime.watch import watched
        from mien.vision.video import frames

        (begin, end), before, number = self._span, None, None
        if self.progress is not None:
            begin, number = self.progress.seconds, self.progress.index
        how = (self._every, begin, end, self._rate, self._patience, _tell, 0.0, number, self._damaged)
        moving = frames(self.asked.place, *how)
        if self.progress is not None:
            before = next(moving, None)
            if before is None or abs(before.seconds - begin) > 1e-6:
                raise VideoError(f"{self.asked.source}: is not as it was when an earlier run stopped")
        return watched(self.reader, moving, self.how, memory=self.memory, before=before, between=self._between)

    def _between(self, seconds: float) -> None:  # noqa: ARG002 - the time is the frame's to come
        """A part is finished: say so on the disk."""
        if self.bookmark is not None:
            return self._mark(self.memory.state())
        for sink in (self._table, self._video):
            if sink is not None and self.how.live:
                self._broken = sink
                sink.checkpoint()
        self._broken = None
        return None

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:  # noqa: ARG002
        """All is read that will be: say so on the disk, before the outputs get their names."""
        if kind is None or issubclass(kind, (KeyboardInterrupt, VideoError)):
            with suppress(OutputError):  # a full disk: the part before it is gone on with
                problem = str(error) if isinstance(error, VideoError) else ""
                if self._last is None and self.bookmark and self.progress and not self.progress.ended:
                    self.bookmark.write(replace(self.progress, ended=True, problem=problem))
                self._mark({}, True, problem)

    def _mark(self, state: dict[str, Any], ended: bool = False, problem: str = "") -> None:
        """Write the bookmark, once everything so far is safely on the disk."""
        from mien.runtime.resume import Progress

        if self.bookmark is None or self._last is None:
            return
        start = self._video.checkpoint() if self._video is not None else None
        self.bookmark.write(
            Progress(self.bookmark.key, self._table.checkpoint(), self._last.index, self._last.seconds,
                     self.seen.frames, self.seen.faces, start, self._saved(start, self._last.seconds), state, ended, problem,
                     damaged=self._damaged)
        )  # fmt: skip

    def _note(self, path: Path) -> None:
        """An output is there: it is not made again."""
        from mien.runtime.resume import mark_of

        found = self._kept()
        if self.bookmark is None or found is None or not found.ended or not path.exists():
            return
        role = next(role for role, other in self.asked.files().items() if other == path)
        with suppress(OutputError):
            self.bookmark.write(replace(found, done={**found.done, role: mark_of(path)}))

    def _stopped(self, error: OutputError) -> OutputError:
        """The error of an output, and what can be done; without a finished part nothing is left behind."""
        found = self._kept()
        if found is not None:
            done = f"{found.seconds:.0f} s are finished and kept: make room and give the same command again"
            return OutputError(f"{error}; {done}")
        self._forget()
        return error

    def troubles(self, written: bool) -> Iterator[str]:
        """What went wrong with outputs at the end, and what can be done; written: whether others are there."""
        found, done = self._kept() if self.failed else None, ""
        if found is not None and found.ended:
            done = "; all that was read is kept: the same command makes it"
        elif found is not None:
            again = "give the same command again" + (" with --overwrite" if written else "")
            done = f"; {found.seconds:.0f} s are finished and kept: make room and {again}"
        yield from (f"{error}{done}" for error in self.failed.values())

    def derive(self, thumbnails: bool) -> None:
        """What is made from the rows: subtitles and the report. A kill leaves the bookmark, so that the rest can be made."""
        rows, asked = self.asked.rows, self.asked
        if rows is None or not self.seen.frames or rows in self.failed or not rows.exists():
            return
        waiting = [path for path in (asked.subtitles, asked.report) if path is not None and path not in self.made]
        kept = f"the rows are kept in {rows}"
        try:
            while waiting:
                try:
                    self._make(waiting[0], rows, asked.source if thumbnails else None)
                    self._note(waiting[0])
                except OutputError as error:
                    self.failed[waiting[0]] = OutputError(f"{error}; {kept}")
                waiting.pop(0)
        except KeyboardInterrupt:
            for path in waiting:
                self.failed[path] = OutputError(f"{path}: was interrupted before it was made; {kept}")
        if not self.failed:
            self._forget()
        if asked.table is None and not self.failed.keys() & {asked.subtitles, asked.report}:
            rows.unlink(missing_ok=True)

    def _make(self, path: Path, rows: Path, video: str | None) -> None:
        """Subtitles, or the report. Raises OutputError."""
        from mien.runtime.subtitles import subtitles_of

        asked = self.asked
        if path == asked.subtitles:
            subtitles_of(rows, path, asked.overwrite, asked.save is not None)
        else:
            timeline().write_report(rows, path, asked.overwrite, video, asked.source, self._rate)


def _tell(words: str) -> None:
    print(f"mien: {words}", file=sys.stderr)
