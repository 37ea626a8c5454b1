"""Writes the API reference: a static site that needs nothing from elsewhere.

python docs/api.py [FOLDER]     # out/api by default; needs pip install 'mien[docs]'

A warning (a name in __all__ that is not there, a docstring that cannot be read) is an error.
"""

import re
import sys
import warnings
from pathlib import Path

import pdoc

import mien

#: The rooms that other people's code leans on; verbs and trainings are described by README and docs.
ROOMS = ["mien", "mien.errors", "mien.faces", "mien.labels", "mien.spec", "mien.vision", "mien.runtime"]
#: A line of a docstring that tells of an argument, or of what is raised: a paragraph of its own.
ARGUMENT = re.compile(r"\n(?=(?:[a-z_]+(?:, [a-z_]+)*: |Raises |Returns ))")


def build(folder: Path) -> Path:
    """The site's first page."""
    warnings.simplefilter("error", UserWarning)
    for name in mien.__all__:  # pdoc looks into the module, where names that are looked up when first used are not yet
        setattr(mien, name, getattr(mien, name))
    convert = pdoc.docstrings.convert
    pdoc.docstrings.convert = lambda text, *how: convert(ARGUMENT.sub("\n\n", text), *how)
    pdoc.render.configure(docformat="markdown", footer_text=f"mien {mien.__version__}")
    pdoc.pdoc(*ROOMS, output_directory=folder)
    return folder / "mien.html"


if __name__ == "__main__":
    print(f"written: {build(Path(*(sys.argv[1:] or ['out/api'])))}")
