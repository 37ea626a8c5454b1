"""The build step of the page: bring its engine, onnxruntime-web, from npm into the package.

`make web` runs this file; building a wheel does the same if npm is there. What comes in is pinned, with its hash, by
src/mien/apps/web/package-lock.json; only the two files that the page loads are kept, and none of it is in the repository.
"""

from __future__ import annotations

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
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=place, check=True)
        source, ready = place / "node_modules" / "onnxruntime-web", place / "vendor"
        ready.mkdir()
        for part in FILES:
            shutil.copy(source / "dist" / part, ready)
        shutil.copy(web / "package-lock.json", ready)
        version = (web / "package.json").read_text().split('"onnxruntime-web": "')[1].split('"')[0]
        (ready / "LICENSE.txt").write_text(NOTICE.format(version=version, files=" and ".join(FILES)))
        shutil.rmtree(web / "vendor", ignore_errors=True)
        shutil.copytree(ready, web / "vendor")
    return web / "vendor"


class WebBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Before a wheel is built: the engine, if it can be had; else the wheel's page says what is missing."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's call
        """See hatchling."""
        if version == "editable" or up_to_date():
            return
        try:
            vendor()
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"the page's engine is not inside ({error}); its pictures will be read by the server")


if __name__ == "__main__":
    if up_to_date():
        print(f"up to date: {WEB / 'vendor'}")
    else:
        try:
            print(f"written: {vendor()}")
        except (OSError, subprocess.CalledProcessError) as problem:
            sys.exit(f"the page's engine could not be brought in ({problem}); is npm installed, and its registry reachable?")
