"""What README and docs show is true."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from mien.cli import command_line
from mien.errors import ConfigError
from mien.recipe import load_recipe, recipe_names

#: click's, of whichever click typer has.
UsageError = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")
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


def commands(text):
    """Every line of a page that is a command of mien, as words; without its comment, and what a shell does with it."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    for line in lines:
        if line.startswith("    ") and re.match(r"(mien|srun mien|torchrun .*--module mien) ", line.strip()):
            words = shlex.split(line.split(" mien ", 1)[1], comments=True)
            ends = [i for i, word in enumerate(words) if word in {"|", ">", "2>", "&&", ";"}]
            yield words[: ends[0]] if ends else words


def parsed(words):
    """What the command line makes of these words, without doing anything. Raises UsageError."""
    command, name = typer.main.get_command(command_line()), "mien"
    context = command.make_context(name, [], resilient_parsing=True)
    while hasattr(command, "commands"):
        found = command.commands.get(words[0]) if words else None
        if found is None:
            raise UsageError(f"no command {' '.join(words[:1])!r}")
        command, words = found, words[1:]
    with command.make_context(name, list(words), parent=context) as context:
        return command.name, context.params


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_is_one(page):
    wrong = []
    for words in commands(page.read_text()):
        try:
            name, options = parsed(words)
            if name in {"train", "tune", "show"} and options["recipe"] in recipe_names():
                load_recipe(options["recipe"], options["settings"] or ())
        except (UsageError, ConfigError) as error:
            wrong.append(f"mien {' '.join(words)}: {getattr(error, 'message', error)}")
    assert wrong == []


def test_a_wrong_command_is_found():
    assert len(list(commands(PAGES[0].read_text()))) > 20
    for line in ("predict a.jpg --shine", "evaluate x", "pedict a.jpg", "predict a.jpg --min-size big"):
        with pytest.raises(UsageError):
            parsed(line.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not _leads(page, link)] == []


def _leads(page, link):
    """Whether the file is there, and in a page the heading."""
    name, _, anchor = link.partition("#")
    there = page.parent / name if name else page
    return there.exists() and (not anchor or anchor in _anchors(there.read_text()))


def _anchors(text):
    """What GitHub calls the headings of a page."""
    return {
        re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


def test_a_link_to_no_heading_is_found():
    assert not _leads(PAGES[0], "docs/training.md#nothing")
    assert _leads(PAGES[0], "docs/judging.md#another-tools-answers")


@pytest.mark.parametrize("name", ["training", "judging", "models", "making"])
def test_the_long_pages_have_lines_that_can_be_read(name):
    lines = (ROOT / "docs" / f"{name}.md").read_text().splitlines()
    assert [line for line in lines if len(line) > 145 and not line.startswith(("|", "    "))] == []


def test_every_room_is_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [path.name for path in (ROOT / "src" / "mien").iterdir() if (path / "__init__.py").exists()]
    assert [room for room in rooms if f"`{room}`" not in text] == []
