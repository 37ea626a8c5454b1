"""The notebook runs, from a photograph to a timeline."""

import json
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_notebook_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    cells = json.loads((EXAMPLES / "timeline.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), "outputs stay out of the repository"
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)  # noqa: S102 - our own notebook
    shown = capsys.readouterr().out
    assert shown.startswith("happiness")
    assert "person 1: happiness" in shown
    assert "Person 1" in (tmp_path / "timeline.html").read_text()
