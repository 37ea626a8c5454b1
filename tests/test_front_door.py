"""Importing mien costs nothing, and the light side never needs torch."""

import subprocess
import sys

import pytest

import mien

HEAVY = ("cv2", "torch", "onnxruntime", "av", "PIL", "pyarrow", "sklearn", "lightning")


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(n for n in {HEAVY!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_is_light():
    assert loaded_after("import mien") == set()


def test_the_command_line_starts_light():
    assert loaded_after("import mien.cli") == set()


def test_looking_never_imports_torch():
    assert (
        loaded_after("import mien; mien.load; import mien.runtime.sinks") & {"torch", "pyarrow", "sklearn", "lightning"}
        == set()
    )


def test_tables_and_pictures_do_without_pyav():
    assert "av" not in loaded_after("import mien.runtime.read, mien.runtime.sinks, mien.vision.image, mien.vision.draw")


def test_a_photograph_needs_nothing_of_other_verbs_or_of_the_network():
    code = "import sys; sys.argv = ['mien', 'predict', 'none.jpg', '--json']; from mien.cli import main; main()"
    others = "('mien.cli.data', 'mien.cli.watch', 'http.client', 'ssl')"
    code = f"import atexit; atexit.register(lambda: print([n for n in {others} if n in sys.modules])); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (2, ["[]"]), done.stderr


def test_every_public_name_is_there():
    assert all(getattr(mien, name) is not None for name in mien.__all__)


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        mien.laod  # noqa: B018
