"""The command line: one verb, one file. Heavy imports happen inside the verb."""

from __future__ import annotations

import atexit
import errno
import gc
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from glob import glob
from importlib import import_module
from typing import Annotated

import typer

import mien
from mien.errors import MienError

__all__ = ["VERBS", "command_line", "main"]

#: Every verb and the module of this package that holds it, in the order of the help; a module's `app` has verbs of its own.
VERBS = {
    "predict": "predict",
    "watch": "watch",
    "annotate": "annotate",
    "report": "report",
    "serve": "serve",
    "page": "page",
    "train": "train",
    "tune": "tune",
    "soup": "soup",
    "show": "show",
    "runs": "runs",
    "export": "export",
    "evaluate": "evaluate",
    "compare": "compare",
    "ensemble": "ensemble",
    "calibrate": "calibrate",
    "data": "data",
    "models": "models",
    "doctor": "doctor",
    "bench": "bench",
}

#: Verbs of which an argument may be a pattern that Windows' shells, unlike others, hand on as it is; `predict` and `annotate` read theirs.
_MANY = {"compare", "data", "ensemble", "runs", "soup"}
#: What an OSError says of a name that is looked at before anything is read.
_PLACES = {
    errno.ENAMETOOLONG: "is too long for a file's name or path; give a shorter one",
    errno.EACCES: "may not be looked into (permission denied); ask its owner, or choose another place",
    errno.EPERM: "may not be looked into (operation not permitted); on macOS allow it to this terminal (System Settings, "
    "Privacy & Security, Files and Folders), or choose another place",
}
#: What an OSError of no file says where the answer is printed to: a full disk, a quota, a limit, a reader that left.
_UNPRINTED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mien {mien.__version__}")
        raise typer.Exit


def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    pass


def command_line(words: Sequence[str] = ()) -> typer.Typer:
    """The command line for these words. If the first is a verb, it has that verb alone: building all takes 50 ms."""
    app = typer.Typer(
        help="Reads faces: expression, valence and arousal; and trains such models.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for verb in words[:1] if words and words[0] in VERBS else VERBS:
        module = import_module(f"mien.cli.{VERBS[verb]}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb)
        else:
            app.command(verb)(getattr(module, verb))
    return app


def shelled(words: Sequence[str]) -> list[str]:
    """The words as a shell of Linux or macOS gives them to a program: ~ is the home, a pattern the files that it matches.

    A name that is there stands for itself, though it has brackets, and so does a pattern that matches nothing.
    """
    found: list[str] = []
    for word in map(os.path.expanduser, words):
        pattern = words[0] in _MANY and any(letter in word for letter in "*?[") and not os.path.exists(word)
        found += (sorted(glob(word)) if pattern else []) or [word]
    return found


def main() -> None:
    """The entry point: a MienError is one line and exit code 2, and so is a name that no file can have, a place that may not be
    looked into, or an answer that cannot be printed (`> out.txt` on a full disk); a bug keeps its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # JSON is UTF-8, whatever Windows writes to a file or a pipe; and a file's name may be none.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    atexit.register(gc.freeze)  # else the interpreter looks for cycles in all there is once more: 80 ms
    words = shelled(sys.argv[1:]) if sys.platform == "win32" else sys.argv[1:]
    try:
        try:
            command_line(words)(words)  # given, for else typer makes many words of each pattern on Windows
        finally:
            sys.stdout.flush()
    except MienError as error:
        print(f"mien: error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # pathlib's questions raise it, wherever a name is looked at first
        if error.filename is None and (error.errno in _UNPRINTED or _has_left(error)):
            left = _has_left(error)
            _print_no_more()
            if left:  # of `mien ... | head`
                sys.exit(1)
            why = f"the answer cannot be printed ({error.strerror})"
            print(f"mien: error: {why}; make room, or print it elsewhere", file=sys.stderr)
            sys.exit(2)
        if error.errno not in _PLACES:
            raise
        name = str(error.filename)
        print(
            f"mien: error: {name[:80]}{'...' * (len(name) > 80)}: {_PLACES[error.errno]}",
            file=sys.stderr,
        )
        sys.exit(2)


def _has_left(error: OSError) -> bool:
    """Whether nobody reads any more what is printed: Windows calls that an invalid argument, which much else is too."""
    if error.errno == errno.EINVAL and sys.platform == "win32":
        try:
            sys.stdout.flush()
        except OSError:
            return True
    return error.errno == errno.EPIPE


def _print_no_more() -> None:
    """The interpreter tries again at its end to print what could not be: let it go nowhere."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
