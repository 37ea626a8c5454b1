"""mien page: the page that reads faces in the browser, as a static site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def page(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    overwrite: Annotated[bool, typer.Option(help="Replace a page that is there.")] = False,
    model: Annotated[str, typer.Option(help="A model's name or file.")] = "ferplus-small",
    detector: Annotated[str, typer.Option(help="auto (mien-face), mien-face, yunet or whole.")] = "auto",
    detector_file: Annotated[Path | None, typer.Option(help="A local detector file in YuNet's form.")] = None,
    min_size: Annotated[
        float | None,
        typer.Option(min=1, help="Look for faces from this size on, pixels; slower, and finds more that are none."),
    ] = None,
) -> None:
    """Write the page as a static site: any web server can give it out, and it needs nothing behind it.

    Faces are read in the visitor's browser; no picture is sent anywhere.
    """
    from mien.apps.page import write_site
    from mien.runtime.detect import detector_path
    from mien.runtime.read import load
    from mien.runtime.store import model_file

    reader = load(model, detector, 1, detector_file, min_size)
    size = write_site(folder, reader, model_file(model), detector_path(detector, detector_file), overwrite)
    print(f"written: {folder} ({size / 1e6:.1f} MB)")
    print(f"look at it with: python -m http.server -d {folder} -b 127.0.0.1")
