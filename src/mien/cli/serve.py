"""mien serve: the page and the HTTP API."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from mien.errors import MissingExtra

_NEEDS = ("litestar", "uvicorn", "websockets", "prometheus_client")


def serve(
    host: Annotated[str, typer.Option(help="Where to listen; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    model: Annotated[str, typer.Option(help="A model's name or file.")] = "ferplus-small",
    detector: Annotated[str, typer.Option(help="auto (mien-face), mien-face, yunet or whole.")] = "auto",
    detector_file: Annotated[Path | None, typer.Option(help="A local detector file in YuNet's form.")] = None,
    min_size: Annotated[
        float | None,
        typer.Option(min=1, help="Look for faces from this size on, pixels; slower, and finds more that are none."),
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Of one request with pictures.")] = 16_000_000,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of one picture.")] = 40_000_000,
    max_video_bytes: Annotated[int, typer.Option(min=1, help="Of one clip.")] = 512_000_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="That a request may take to arrive, and to be read.")] = 20.0,
    upload_seconds: Annotated[float, typer.Option(min=0.1, help="That a clip may take to arrive.")] = 900.0,
    at_once: Annotated[int, typer.Option(min=1, help="Requests in work; one more is told to come back.")] = 32,
    jobs: Annotated[int, typer.Option(min=1, help="Clips that may wait or be read.")] = 4,
    threads: Annotated[int | None, typer.Option(min=1, help="Pictures worked on at once; as many as cores.")] = None,
) -> None:
    """Open the page (faces are read in the browser) and an HTTP API on this machine. Ctrl-C ends it.

    Keys: set MIEN_API_KEYS to one or several, separated by commas. The API is described at /schema/openapi.json.
    """
    if any(importlib.util.find_spec(name) is None for name in _NEEDS):
        raise MissingExtra.of("Serving needs Litestar and uvicorn", "serve")
    from mien.apps.gate import log_to_stderr
    from mien.apps.jobs import Opening
    from mien.apps.page import engine_missing, unfit
    from mien.apps.run import is_local, names_of, open_socket
    from mien.apps.run import serve as run
    from mien.apps.server import create_app
    from mien.apps.settings import Settings, keys_from_environment
    from mien.runtime.detect import detector_path
    from mien.runtime.machine import cores
    from mien.runtime.read import load
    from mien.runtime.store import model_file

    settings = Settings(
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_video_bytes=max_video_bytes,
        seconds=seconds,
        upload_seconds=upload_seconds,
        at_once=at_once,
        jobs=jobs,
        keys=keys_from_environment(),
        hosts=names_of(host),
        workers=threads or cores(),
    )
    reader = load(model, detector, 1, detector_file, min_size)
    file = None if detector_file is None else str(detector_file)
    opening = Opening(model=model, detector=detector, detector_file=file, min_size=min_size)
    app = create_app(reader, settings, opening, model_file(model), detector_path(detector, detector_file))
    listening = open_socket(host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"the page: http://{shown}:{listening.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    if lacks := engine_missing() or unfit(reader):
        print(f"mien: {lacks}; so the page sends its pictures to this server", file=sys.stderr)
    if not is_local(host) and not settings.keys:
        print(
            "mien: anyone who reaches this address can use the server; set MIEN_API_KEYS to ask for a key",
            file=sys.stderr,
        )
    log_to_stderr()
    run(app, listening, settings)
