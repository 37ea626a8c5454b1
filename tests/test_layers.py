"""Rooms import only from rooms below them."""

import ast
import re
from pathlib import Path

import mien

HEIGHTS = {
    "errors": 0, "labels": 0.1, "faces": 0.2, "spec": 0.3, "sections": 0.35, "recipe": 0.4, "files": 0.1, "alone": 0.2,
    "vision": 1, "runtime": 2, "data": 3, "evaluation": 4, "report": 5, "models": 6, "training": 7, "export": 7.1, "apps": 8, "cli": 9,
}  # fmt: skip
SIBLINGS = {("training", "export"), ("export", "training")}


def upward_imports(root: Path) -> list[str]:
    """Every import of a room that does not lie below, as 'file: room'."""
    found = []
    for path in sorted(root.rglob("*.py")):
        room = path.relative_to(root).parts[0].removesuffix(".py")
        if room in {"__init__", "__main__"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mien."):
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [item.name for item in node.names if item.name.startswith("mien.")]
            for name in names:
                other = name.split(".")[1]
                if other != room and (HEIGHTS[other] >= HEIGHTS[room] or (room, other) in SIBLINGS):
                    found.append(f"{path.relative_to(root)}: {other}")
    return found


def test_every_import_goes_down():
    assert upward_imports(Path(mien.__file__).parent) == []


def test_a_planted_upward_import_is_found(tmp_path):
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "bad.py").write_text("def f():\n    from mien.runtime.read import load\n")
    assert upward_imports(tmp_path) == ["vision/bad.py: runtime"]


def test_every_room_has_a_height():
    rooms = {
        p.name.removesuffix(".py")
        for p in Path(mien.__file__).parent.iterdir()
        if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert rooms - {"__init__", "__main__"} == set(HEIGHTS)


#: The endings of files that mien itself names.
OWN_ENDINGS = {"runtime/wheels.py", "apps/page.py"}


def test_endings_are_compared_in_small_letters():
    """A.PARQUET is a Parquet file: a suffix that is compared, or looked up, is lowered before."""
    compared = re.compile(r"\.suffix( [!=]= \"| (not )?in |\])")
    root = Path(mien.__file__).parent
    found = {
        path.relative_to(root).as_posix(): line.strip()
        for path in sorted(root.rglob("*.py"))
        for line in path.read_text().splitlines()
        if compared.search(line) and "kind.suffix" not in line
    }
    assert found.keys() - OWN_ENDINGS == set(), found
