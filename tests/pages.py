"""A reader of HTML pages for tests: whether tags close, and what a page refers to."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "img", "br", "link", "input", "hr", "rect", "line", "circle", "image"}


class Reader(HTMLParser):
    """Checks that tags close, and keeps what a page refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.faults, self.tags, self.words = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.faults.append(tag)

    def handle_data(self, text):
        self.words.append(text)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def check_page(html: str) -> Reader:
    """A page that is well formed, needs nothing from elsewhere and speaks to everybody; returns what was read."""
    page = Reader(html)
    assert (page.faults, page.open) == ([], [])
    assert [tag for tag in ("header", "main", "footer", "h1", "title") if len(page.all(tag)) != 1] == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"].removeprefix("#") for a in page.all("a")} <= set(ids)
    assert not page.all("script")
    assert not page.all("link")
    pictures = [a.get("src") or a.get("href") for tag, a in page.tags if tag in ("img", "image")]
    assert all(source.startswith("data:image/") for source in pictures)
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    return page
