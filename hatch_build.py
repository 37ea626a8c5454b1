"""The build step of the page: bring its engine, onnxruntime-web, from npm into the package.

`make web` runs this file; building a wheel does the same if npm is there. What comes in is pinned, with its hash, by
src/mien/apps/web/package-lock.json; only the two files that the page loads are kept, and none of it is in the repository.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by `make web`
    BuildHookInterface = object

WEB = Path(__file__).parent / "src" / "mien" / "apps" / "web"
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
NOTICE = """onnxruntime-web {version}, the files {files}; from the npm package of that name, unaltered.

MIT License. Copyright (c) Microsoft Corporation.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions: The above copyright notice and this permission notice shall be
included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES
OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR
IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def up_to_date(web: Path = WEB) -> bool:
    """Whether the engine is there, as pinned."""
    files = [web / "vendor" / name for name in (*FILES, "package-lock.json")]
    if not all(path.is_file() for path in files):
        return False
    return files[-1].read_bytes() == (web / "package-lock.json").read_bytes()


def vendor(web: Path = WEB) -> Path:
    """Fill web/vendor by npm; whole or not at all. Raises OSError (no npm) or CalledProcessError (npm failed)."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for part in ("package.json", "package-lock.json"):
            shutil.copy(web / part, place)
        npm = shutil.which("npm") or "npm"
        subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=place, check=True
        )
        return take(place / "node_modules" / "onnxruntime-web" / "dist", web)


def take(source: Path, web: Path = WEB) -> Path:
    """Fill web/vendor from a folder that holds the engine's files."""
    version = json.loads((web / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    with tempfile.TemporaryDirectory(dir=web) as name:
        ready = Path(name) / "vendor"
        ready.mkdir()
        for part in FILES:
            shutil.copyfile(source / part, ready / part)
        shutil.copyfile(web / "package-lock.json", ready / "package-lock.json")
        (ready / "LICENSE.txt").write_text(NOTICE.format(version=version, files=" and ".join(FILES)))
        shutil.rmtree(web / "vendor", ignore_errors=True)
        ready.rename(web / "vendor")
    return web / "vendor"


class WebBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Before a wheel is built: the example and the engine, if it can be had; else the wheel's page says what is missing."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling."""
        if version == "editable":
            return
        example = Path(self.root) / "examples" / "eileen_collins.jpg"
        build_data["force_include"][str(example)] = "mien/apps/web/example.jpg"
        if up_to_date():
            return
        try:
            vendor()
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(
                f"the page's engine is not inside ({error}); its pictures will be read by the server"
            )


def main(arguments: list[str]) -> None:
    """`hatch_build.py` asks npm; `hatch_build.py FOLDER` takes the files that lie there."""
    if not arguments and up_to_date():
        print(f"up to date: {WEB / 'vendor'}")
        return
    try:
        print(f"written: {take(Path(arguments[0])) if arguments else vendor()}")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(
            f"the page's engine could not be brought in ({error}); is npm installed, and does it reach its registry?"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
