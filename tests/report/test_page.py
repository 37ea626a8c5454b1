"""The audit's page: whole, self-contained, readable by all."""

import re

import cv2
import numpy as np
import pytest

from mien.data.audit import audit
from mien.data.manifest import Header, Sample, make_manifest
from mien.errors import DataError
from mien.labels import label_set
from mien.report.figures import data_uri, label_colour, montage, plane, tile
from mien.report.page import audit_page
from pages import Reader

LABELS = label_set("affectnet8")


def png(image):
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def texture(seed):
    rough = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return cv2.resize(rough, (48, 48), interpolation=cv2.INTER_CUBIC)


def a_manifest(source="planted", soft=True, affect=True):
    samples = []
    for i in range(24):
        target = LABELS.onehot(LABELS.names[i % 8])
        target = target * 0.7 + 0.3 / 8 if soft else target
        split = "validation" if i % 4 == 3 else "train"
        numbers = {"valence": np.cos(i), "arousal": np.sin(i)} if affect else {}
        samples.append(Sample(f"row{i}", png(texture(i % 21)), target.astype(np.float32), split, **numbers))
    samples.append(Sample("broken", b"<script>alert(1)</script>", LABELS.onehot("fear")))
    samples.append(Sample("black", png(np.zeros((48, 48, 3), np.uint8)), None))
    header = Header(source=source, labels=LABELS.names, licence="<b>none</b>", left_out={"no face": 3}, warnings=("w",))
    return make_manifest(samples, header)


@pytest.fixture(scope="module")
def html():
    manifest = a_manifest("<script>planted")
    return audit_page(audit(manifest), manifest)


def test_the_page_is_well_formed(html):
    page = Reader(html)
    assert page.faults == []
    assert page.open == []
    assert [tag for tag in ("header", "main", "footer", "h1", "title") if len(page.all(tag)) != 1] == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.all("a")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_the_page_needs_nothing_from_elsewhere(html):
    page = Reader(html)
    assert not page.all("script")
    assert not page.all("link")
    sources = [a.get("src") or a.get("href") for tag, a in page.tags if tag in ("img", "image")]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|@import|url\(", html)


def test_every_picture_and_table_speaks(html):
    page = Reader(html)
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("aria-label") for attributes in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_what_was_found_is_said(html):
    words = " ".join(" ".join(Reader(html).words).split())
    for part in (
        "every pixel is black",
        "--rules leaks",
        "--rules undecodable",
        "Valence and arousal",
        "Left out before",
    ):
        assert part in words
    assert "Agreement of the votes" in words
    assert "Faces of each class" in words
    assert "<script>planted" in words
    assert "<script>planted" not in html


def test_sections_without_anything_to_show_are_left_out():
    manifest = a_manifest(soft=False, affect=False).take(range(8))
    html = audit_page(audit(manifest), manifest)
    assert "Nothing was found" in html
    assert not [name for name in ("copies", "odd", "affect", "votes") if f'id="{name}"' in html]


def test_an_empty_manifest_has_a_page():
    manifest = a_manifest().take([])
    assert Reader(audit_page(audit(manifest), manifest)).faults == []


def test_the_page_is_the_same_again_and_refuses_another_manifest():
    manifest = a_manifest()
    report = audit(manifest)
    assert audit_page(report, manifest) == audit_page(report, manifest)
    assert audit_page(report, manifest, seed=1) != audit_page(report, manifest)
    with pytest.raises(DataError, match="not of this manifest"):
        audit_page(report, manifest.take([0]))


def test_tiles_and_sheets():
    wide = np.full((20, 40, 3), 255, np.uint8)
    square = tile(wide, 16)
    assert square.shape == (16, 16, 3)
    assert square[8].min() == 255
    assert (square[0] == 128).all()
    assert tile(wide, 16, (0, 0, 8, 8))[8, 8].tolist() == [255] * 3
    assert tile(wide, 16, (90, 90, 80, 80)).shape == (16, 16, 3)
    assert montage([square] * 5, 3).shape == (34, 52, 3)
    assert data_uri(square).startswith("data:image/jpeg;base64,")
    assert data_uri(square, None).startswith("data:image/png;base64,")


def test_the_plane_takes_what_lies_inside():
    affect = np.array([[0, 0], [np.nan, 0], [2, 0]], np.float32)
    assert "data:image/png" in plane(affect, ["fear", None, "other"], "points")
    assert label_colour("other") == label_colour("other")
    assert len({label_colour(name) for name in LABELS}) == 8
