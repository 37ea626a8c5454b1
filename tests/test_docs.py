"""What README and docs show is true."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
def test_the_readme_runs(block, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102 - our own page
    assert capsys.readouterr().out.startswith("happiness")


@pytest.mark.parametrize(
    "block", re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "explaining.md").read_text(), re.DOTALL)
)
def test_what_explaining_shows_runs(block, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(block, "explaining.md", "exec"), {})  # noqa: S102 - our own page
    assert capsys.readouterr().out == "happiness (8, 8)\n"


def test_what_those_who_come_from_elsewhere_are_shown_runs(monkeypatch, capsys):
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "coming-from.md").read_text(), re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(compile(block, "coming-from.md", "exec"), {})  # noqa: S102 - our own page
    assert capsys.readouterr().out == "True happiness\n"


@pytest.mark.parametrize(
    "block", re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
)
def test_what_export_shows_runs(block, capsys):
    exec(compile(block, "export.md", "exec"), {})  # noqa: S102 - our own page
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["onnx", "openvino", "tensorrt", "onnx", "onnx"]
    assert lines[-1] == "onnx on cpu: asked for"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_room_is_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [path.name for path in (ROOT / "src" / "mien").iterdir() if (path / "__init__.py").exists()]
    assert [room for room in rooms if f"`{room}`" not in text] == []
