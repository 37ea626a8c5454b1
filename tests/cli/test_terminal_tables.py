"""No table cuts a word or a figure, however narrow the terminal."""

import pytest
from rich.table import Table

from mien.cli.tables import print_table


def a_table(*rows):
    table = Table("run", "val/accuracy", "95 % interval", "about", title="runs")
    for row in rows:
        table.add_row(*row)
    return table


@pytest.fixture
def printed(monkeypatch, capsys):
    def print_(table, columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(table)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return print_


def test_a_table_wraps_between_words(printed):
    out = printed(a_table(("a", "0.12345", "0.1 to 0.2", "an average of all the others")), 52)
    assert out[-2:] == [
        "a    0.12345       0.1 to 0.2     an average of all",
        "                                  the others",
    ]


def test_a_terminal_too_narrow_for_the_words_is_told_them(printed):
    out = printed(a_table(("a", "0.12345", "0.1 to 0.2", ""), ("b", "-", "", "the very last of these")), 27)
    assert out[0] == "runs"
    assert out[1:] == [
        "  a",
        "    val/accuracy 0.12345",
        "    (0.1 to 0.2)",
        "  b",
        "    val/accuracy -; about",
        "    the very last of these",
    ]


def test_eighty_columns_hold_every_figure(mien, monkeypatch, tmp_path):
    from test_listing import a_run

    a_run(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a" / "metrics.csv").write_text(
        "epoch,"
        + ",".join(f"val/figure-{i}" for i in range(9))
        + "\n0,"
        + ",".join(f"0.{i}1234" for i in range(9))
        + "\n"
    )
    monkeypatch.setenv("COLUMNS", "80")
    out = " ".join(mien("runs", "runs")[1].split())
    assert all(f"val/figure-{i} 0.{i}1234" in out for i in range(9))


def test_the_sources_are_named_whole(mien, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = mien("data", "list")[1]
    assert "affectnet-kaggle" in out
    assert "\u2026" not in out
    assert "labels own" in out  # of folders and the like
