"""The timeline: figures with oracles, episodes, files for other programs, the page."""

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.signal import lfilter

from builders import LABELS, a_face, an_expression
from mien.errors import DataError
from mien.evaluation.intervals import block_bootstrap, memory
from mien.evaluation.timeline import Person, episodes, read_timeline, summary
from mien.faces import Expression, Frame
from mien.report.annotations import episodes_csv, write_annotations
from mien.report.strips import _WIDTH, Bins, _ticks, binned, curves, path
from mien.report.timeline import timeline_page, write_report
from mien.runtime.table import TableSink
from mien.runtime.track import Smoother
from mien.vision.writer import VideoWriter

IMAGE = np.zeros((2, 2, 3), np.uint8)


def a_person(seconds, happy, lasted=0.1, track=1) -> Person:
    """Happiness as given, the rest neutral; valence follows."""
    seconds, happy = np.asarray(seconds, float), np.asarray(happy, float)
    shares = np.zeros((len(seconds), len(LABELS)))
    shares[:, LABELS.index("happiness")], shares[:, LABELS.index("neutral")] = happy, 1 - happy
    affect = np.stack([happy, np.zeros(len(happy))], axis=1)
    return Person(
        track, seconds, shares, affect, np.tile([0.0, 0, 9, 9], (len(seconds), 1)), np.full(len(seconds), lasted)
    )


@pytest.fixture
def table(tmp_path):
    """A minute at 10 frames a second: person 1 always there, happy from 20 to 40 s; person 2 from 30 s on; 45 to 50 s nobody."""
    path = tmp_path / "t.csv"
    with TableSink(path, LABELS, image="a.mp4", model="tiny", smoothing=0.3) as sink:
        for i in range(600):
            t = i / 10
            one = an_expression("happiness" if 20 <= t < 40 else "neutral", 0.8, 0.6 if 20 <= t < 40 else 0.0, 0.1)
            faces = [a_face(expression=one, track=1)]
            if t >= 30:
                faces.append(a_face(expression=an_expression("anger", 0.7, -0.4, 0.5), track=2))
            sink.write(Frame(IMAGE, i, t), [] if 45 <= t < 50 else faces)
    return path


def test_a_table_becomes_people(table):
    found = read_timeline(table)
    assert [(p.track, round(p.seen, 3)) for p in found.people] == [(1, 55.0), (2, 25.0)]
    assert (found.frames, found.begin, round(found.end, 3), round(found.filled, 3)) == (600, 0.0, 60.0, 55.0)
    assert (found.source, found.model, found.smoothing, found.labels) == ("a.mp4", "tiny", 0.3, LABELS)
    figures = summary(found.people[0], found.step)
    happy = LABELS.index("happiness")
    assert figures.shares[happy] == pytest.approx(20 / 55, abs=1e-9)
    assert figures.affect[0] == pytest.approx(0.6 * 20 / 55, abs=1e-6)
    low, high = figures.share_edges[:, happy]
    assert 0 <= low < 20 / 55 < high <= 1
    angry = summary(
        found.people[1], found.step
    )  # 25 seconds, never anything else: Wilson's interval of 12 blocks of 2 s
    assert angry.share_edges[:, LABELS.index("anger")] == pytest.approx([12 / (12 + 1.96**2), 1], abs=1e-4)
    assert angry.share_edges[:, happy] == pytest.approx([0, 1.96**2 / (12 + 1.96**2)], abs=1e-4)


def test_shares_are_of_time_and_not_of_frames():
    """Two frames that last a second each weigh as much as twenty of a tenth."""
    person = a_person([*np.arange(20) / 10, 2.0, 3.0], [*[0.0] * 20, 1.0, 1.0])
    lasted = np.array([*[0.1] * 20, 1.0, 1.0])
    person = Person(1, person.seconds, person.probabilities, person.affect, person.boxes, lasted)
    assert summary(person, 0.1).shares[LABELS.index("happiness")] == pytest.approx(0.5)


@pytest.mark.parametrize(("fast", "slow"), [(30, 24), (30, 20.5), (25, 18), (60, 45)])
def test_a_camera_that_slows_down_counts_by_time(fast, slow):
    """A minute of happiness at one rate and one of none at another are half and half, in tables as in pictures."""
    seconds = np.concatenate([np.arange(60 * fast) / fast, 60 + np.arange(round(60 * slow)) / slow])
    happy = (seconds < 60).astype(float)
    lasted = np.where(happy > 0, 1 / fast, 1 / slow)
    person, step = a_person(seconds, happy, lasted), float(np.median(np.diff(seconds)))
    found, column = summary(person, step), LABELS.index("happiness")
    assert found.shares[column] == pytest.approx(0.5, abs=1e-3)
    assert found.affect[0] == pytest.approx(0.5, abs=1e-3)
    low, high = found.share_edges[:, column]
    assert low < 0.5 < high
    assert abs((low + high) / 2 - 0.5) < 0.05
    assert np.nanmean(binned(person, 0, 120, step).mean[:, column]) == pytest.approx(0.5, abs=0.01)


def test_weights_of_the_block_bootstrap_are_as_rows_given_several_times():
    values, many = np.random.default_rng(0).random((200, 2)), np.tile([1, 3], 100)
    whole = block_bootstrap(values, 20, 4000, weights=many.astype(float))
    assert np.allclose(whole, block_bootstrap(np.repeat(values, many, axis=0), 40, 4000), atol=0.01)
    assert np.array_equal(block_bootstrap(values, 20, weights=np.ones(200)), block_bootstrap(values, 20))


def test_a_model_of_valence_and_arousal_alone_has_a_page(tmp_path):
    with TableSink(tmp_path / "t.csv", LABELS, image="a.mp4", model="felt") as sink:
        for i in range(100):
            felt = Expression(LABELS, np.full(len(LABELS), np.nan, np.float32), 0.5, 0.2)
            sink.write(Frame(IMAGE, i, i / 10), [a_face(expression=felt, track=1)])
    timeline = write_report(tmp_path / "t.csv", tmp_path / "r.html")
    [person] = timeline.people
    assert timeline.filled == pytest.approx(10)
    assert summary(person, timeline.step).affect == pytest.approx([0.5, 0.2])
    assert np.isnan(summary(person, timeline.step).shares).all()
    text = (tmp_path / "r.html").read_text()
    for words in ("mean valence", "+0.50", "The path on the circumplex", "Mean valence and arousal"):
        assert words in text
    for words in ("No face was read", "stacked", "Share of the time", "nan", "most probable", "An episode"):
        assert words not in text
    with pytest.raises(
        DataError, match=r"e\.csv: episodes are of expressions, and this table has valence and arousal alone"
    ):
        write_annotations(timeline, tmp_path / "e.csv")


def test_the_block_bootstrap_is_the_plain_one_for_independent_rows():
    values = np.random.default_rng(0).normal(size=(400, 1))
    low, high = block_bootstrap(values, 1, draws=4000)[:, 0]
    assert (high - low) == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)
    assert np.isnan(block_bootstrap(values[:7], 2)).all()


def test_the_block_bootstrap_holds_where_neighbours_are_alike():
    """AR(1) series: the true mean lies in the interval about as often as it says; rows drawn singly would say far too much."""
    rng, inside, naive = np.random.default_rng(1), 0, 0
    for _ in range(50):
        values = lfilter([1.0], [1.0, -0.95], rng.normal(size=1000))[:, None]
        low, high = block_bootstrap(values, 4 * memory(values, 100), draws=100)[:, 0]
        inside += low <= 0 <= high
        low, high = block_bootstrap(values, 1, draws=100)[:, 0]
        naive += low <= 0 <= high
    assert inside >= 38
    assert naive <= 30
    assert memory(rng.normal(size=(500, 1)), 50) <= 2


def test_episodes_have_onset_apex_and_offset():
    happy = np.zeros(100)
    happy[20:40] = 0.4
    happy[30] = 0.9
    happy[60:62] = 0.9
    happy[80:90] = 0.45
    [one] = episodes(a_person(np.arange(100) / 10, happy), LABELS)
    assert (one.label, one.onset, one.apex, round(one.offset, 6), one.peak) == ("happiness", 2.0, 3.0, 4.0, 0.9)
    assert one.mean == pytest.approx((19 * 0.4 + 0.9) / 20)
    seconds = np.arange(100) / 10 + np.where(np.arange(100) >= 30, 5.0, 0.0)
    assert [round(e.onset, 3) for e in episodes(a_person(seconds, np.full(100, 0.8)), LABELS)] == [0.0, 8.0]


def test_episodes_for_other_programs(table, tmp_path):
    found = read_timeline(table)
    for name in ("e.csv", "e.eaf", "e.boris"):
        write_annotations(found, tmp_path / name)
    with (tmp_path / "e.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["track"], row["label"], row["onset"], row["offset"]) for row in rows] == [
        ("1", "happiness", "20.0", "40.0"),
        ("2", "anger", "30.0", "45.0"),
        ("2", "anger", "50.0", "60.0"),
    ]
    root = ElementTree.parse(tmp_path / "e.eaf").getroot()  # noqa: S314 - our own file
    slots = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")}
    tiers = {
        tier.get("TIER_ID"): [
            (slots[a.get("TIME_SLOT_REF1")], slots[a.get("TIME_SLOT_REF2")]) for a in tier.iter("ALIGNABLE_ANNOTATION")
        ]
        for tier in root.iter("TIER")
    }
    assert tiers == {"person 1: happiness": [(20000, 40000)], "person 2: anger": [(30000, 45000), (50000, 60000)]}
    assert list(slots.values()) == sorted(slots.values())
    project = json.loads((tmp_path / "e.boris").read_text())
    [observation] = project["observations"].values()
    assert [event[:3] for event in observation["events"]][:3] == [
        [20.0, "person 1", "happiness"],
        [30.0, "person 2", "anger"],
        [40.0, "person 1", "happiness"],
    ]
    assert {row["code"] for row in project["behaviors_conf"].values()} == set(LABELS)


@pytest.mark.parametrize("there", [True, False])
def test_episodes_tell_the_truth_of_the_video(tmp_path, monkeypatch, there):
    """A table of each fifth frame of the first second, made in one folder and exported from another."""
    (tmp_path / "o").mkdir()
    (tmp_path / "elsewhere").mkdir()
    if there:
        with VideoWriter(tmp_path / "a.mp4", 64, 64, rate=10) as writer:
            for i in range(40):
                writer.write(np.full((64, 64, 3), 5 * i, np.uint8), i / 10)
    with TableSink(tmp_path / "o" / "t.csv", LABELS, image="a.mp4") as sink:
        for i in (0, 5, 10):
            face = a_face(expression=an_expression("anger", 0.7, -0.4, 0.5), track=1)
            sink.write(Frame(IMAGE, i, i / 10), [face])
    monkeypatch.chdir(tmp_path / "elsewhere")
    timeline, media = read_timeline("../o/t.csv"), tmp_path / "a.mp4"
    write_annotations(timeline, "e.eaf")
    [where] = ElementTree.parse("e.eaf").getroot().iter("MEDIA_DESCRIPTOR")  # noqa: S314 - our own file
    assert where.get("MEDIA_URL") == (media.as_uri() if there else "./a.mp4")
    write_annotations(timeline, "e.boris")
    [observation] = json.loads(Path("e.boris").read_text())["observations"].values()
    name = str(media) if there else "a.mp4"
    known = {"length": {name: 4.0}, "hasAudio": {name: False}} if there else {}
    assert observation["file"]["1"] == [name]
    assert observation["media_info"] == {"offset": {"1": 0.0}, "fps": {name: 10.0}, "hasVideo": {name: True}, **known}


def test_every_fiftieth_frame_covers_the_whole_time(tmp_path):
    path = tmp_path / "t.csv"
    with TableSink(path, LABELS, image="a.mp4", model="tiny", smoothing=0.0) as sink:
        for i in range(30):
            sink.write(
                Frame(IMAGE, 50 * i, 2.0 * i), [a_face(expression=an_expression("anger", 0.7, -0.4, 0.5), track=1)]
            )
    found = read_timeline(path)
    assert found.filled == found.end == found.people[0].seen == 60
    assert found.people[0].lasted.tolist() == [2.0] * 30


def test_pictures_have_no_gap_where_the_face_was_read():
    """Frames of a changing rate: the long ones fill every bin that they last in, by their time."""
    lasted = np.tile([0.033, 0.033, 0.033, 0.1], 25)
    seconds = np.cumsum(lasted) - lasted
    happy = np.tile([0.0, 0, 0, 1], 25)
    person = a_person(seconds, happy)
    person = Person(1, person.seconds, person.probabilities, person.affect, person.boxes, lasted)
    bins = binned(person, 0.0, float(lasted.sum()), 0.033)
    assert len(bins.there) > 140
    assert bins.there.all()
    assert bins.mean[:, LABELS.index("happiness")].mean() == pytest.approx(100 / 199, abs=1e-6)
    held = Person(1, seconds[:40], person.probabilities[:40], person.affect[:40], person.boxes[:40], lasted[:40])
    assert not binned(held, 0.0, float(lasted.sum()), 0.033).there[70:].any()


def test_nothing_covers_the_words_of_the_circumplex():
    """Words stand outside the circle, so that no place on it hides one."""
    root = ElementTree.fromstring(path(binned(a_person([0.0, 0.1], [1.0, 1.0]), 0.0, 0.2, 0.1), "one"))  # noqa: S314
    circle = root.find("circle")
    middle, radius = float(circle.get("cx")), float(circle.get("r"))
    upright = {text.text: abs(float(text.get("y")) - middle) for text in root.findall("text")}
    turned = {}
    for group in root.findall("g"):
        x = float(group.get("transform").removeprefix("translate(").split()[0])
        turned[group.find("text").text] = abs(x - middle)
    assert (set(upright), set(turned)) == ({"excited", "calm"}, {"pleasant", "unpleasant"})
    assert all(far >= radius + 5 for far in (*upright.values(), *turned.values()))


def test_valence_and_arousal_differ_by_more_than_their_colour():
    bins = binned(a_person([0.0, 0.1], [1.0, 1.0]), 0.0, 0.2, 0.1)
    drawn = re.findall(r'stroke="(\S+)" stroke-width="1.6" stroke-dasharray="([^"]+)"', str(curves(bins, "all")))
    assert drawn == [("var(--mark)", "none"), ("var(--bad)", "6 3")]


def test_pictures_hide_no_peak():
    """An hour in 480 steps: the one frame that is happy is still in the range, and the mean is of all rows."""
    happy = np.zeros(36_000)
    happy[20_000] = 1.0
    bins = binned(a_person(np.arange(36_000) / 10, happy), 0.0, 3600.0, 0.1)
    assert len(bins.there) == 480
    assert bins.high[:, LABELS.index("happiness")].max() == 1.0
    assert bins.mean[:, LABELS.index("happiness")].mean() == pytest.approx(happy.mean())


def test_the_page_says_how_long_nobody_was_certain(tmp_path):
    path = tmp_path / "t.csv"
    with TableSink(path, LABELS, image="a.mp4", model="tiny") as sink:
        for i in range(40):
            sure, unsure = an_expression("fear", 0.8), replace(an_expression("anger", 0.6), threshold=0.7)
            sink.write(Frame(IMAGE, i, i / 10), [a_face(expression=unsure if i < 10 else sure, track=1)])
    assert [round(person.doubted, 6) for person in read_timeline(path).people] == [1.0]
    text = timeline_page(read_timeline(path))
    assert "For 25.0 % of it the most probable expression is not certain" in text
    assert "The dark line below them: where" in text
    [where] = re.findall(r'<rect class="unsure" x="([\d.]+)" y="152" width="([\d.]+)"', text)
    assert [float(pixels) for pixels in where] == [44, 227]  # the first of four seconds


def test_the_page_says_how_late_episodes_are(table, tmp_path):
    """The figures are those of a person who smiles at once, from 3 to 6 s, as the smoother shows it."""
    smoother, happy, seconds = Smoother(0.3), [], np.arange(900) / 100
    for t in seconds:
        one = an_expression("happiness" if 3 <= t < 6 else "neutral", 1.0)
        [face] = smoother([a_face(expression=one, track=1)], t)
        happy.append(face.expression.probabilities[LABELS.index("happiness")])
    [one] = episodes(a_person(seconds, happy, lasted=0.01), LABELS)
    assert (one.onset - 3, one.offset - 6) == pytest.approx((0.43 * 0.3, 1.05 * 0.3), abs=0.011)
    words = "the onset is 0.1 s and the offset 0.3 s later"
    assert words in timeline_page(read_timeline(table))
    (tmp_path / "s.csv").write_text(table.read_text().replace(",0.3,1\n", ",0.0,1\n"))
    assert "come late" not in timeline_page(read_timeline(tmp_path / "s.csv"))


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(table, tmp_path, mien):
    code, out, err = mien("report", table, "--out", "r.html", "--episodes", "e.eaf")
    assert (code, "written: r.html" in out, "written: e.eaf" in out) == (0, True, True), err
    text = (tmp_path / "r.html").read_text()
    assert "http" not in text.replace("http://www.w3.org", "")
    for words in (
        "Person 1",
        "Person 2",
        "circular block bootstrap",
        "36.4 %",
        "0:20.0",
        "two people can share a number",
        "it holds no pictures of faces",
    ):
        assert words in text
    assert "<img" not in text
    assert len(text) < 600_000
    assert mien("report", table, "--out", "r.html")[0] == 2, "what exists is not replaced"
    code, _, err = mien("report", table)
    assert (code, "nothing to write" in err) == (2, True)
    assert "no form of episodes" in mien("report", table, "--episodes", "e.xls")[2]


def test_thumbnails_come_from_the_video(table, tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 64, 64, rate=10) as writer:
        for i in range(600):
            writer.write(np.full((64, 64, 3), i % 200, np.uint8), i / 10)
    write_report(table, tmp_path / "r.html", video=tmp_path / "a.mp4")
    text = (tmp_path / "r.html").read_text()
    assert text.count('<img src="data:image/jpeg') == 3
    assert "mind who sees it" in text


def test_thumbnails_of_another_video_are_told_or_refused(mien, table, tmp_path):
    for name, seconds in (("short.mp4", 20), ("renamed.mp4", 60)):
        with VideoWriter(tmp_path / name, 64, 64, rate=10) as writer:
            for i in range(10 * seconds):
                writer.write(np.full((64, 64, 3), i % 200, np.uint8), i / 10)
    code, _, err = mien("report", table, "--out", "r.html", "--thumbnails", "short.mp4")
    assert (code, "short.mp4: lasts 20.0 s, and " in err, "goes on to 60.0 s" in err) == (2, True, True), err
    assert not (tmp_path / "r.html").exists()
    code, _, err = mien("report", table, "--out", "r.html", "--thumbnails", "renamed.mp4")
    assert (code, "renamed.mp4: the table is of a.mp4" in err) == (0, True), err


def test_thumbnails_of_a_folder_and_of_nothing(mien, table, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(600):
        Image.new("L", (64, 64), i % 200).save(frames / f"f{i}.png")
    write_report(table, tmp_path / "r.html", video=frames, rate=10)
    assert (tmp_path / "r.html").read_text().count('<img src="data:image/jpeg') == 3
    for words, message in (
        ("nosuch.mp4", "nosuch.mp4"),
        ("frames", "a folder of pictures has no times"),
        ("rtsp://10.0.0.5/door", "thumbnails are of what can be read again"),
    ):
        code, _, err = mien("report", table, "--out", "s.html", "--thumbnails", words)
        assert (code, message in err) == (2, True), err
        assert not (tmp_path / "s.html").exists()


def test_episodes_of_an_address_name_it_and_unknown_affect_is_empty(tmp_path):
    shares = np.zeros(len(LABELS), np.float32)
    shares[LABELS.index("happiness")] = 1
    with TableSink(tmp_path / "t.csv", LABELS, image="rtsp://10.0.0.5/door") as sink:
        for i in range(20):
            face = a_face(expression=Expression(LABELS, shares, float("nan"), float("nan")), track=1)
            sink.write(Frame(IMAGE, i, i / 10), [face])
    timeline = read_timeline(tmp_path / "t.csv")
    assert episodes_csv(timeline).splitlines()[1].endswith(",1.0,1.0,,")
    write_annotations(timeline, tmp_path / "e.eaf")
    assert 'MEDIA_URL="rtsp://10.0.0.5/door"' in (tmp_path / "e.eaf").read_text()


def test_names_are_escaped_and_empty_tables_say_so(tmp_path):
    with TableSink(tmp_path / "t.jsonl", LABELS, image="<script>alert(1)</script>") as sink:
        for i in range(3):
            sink.write(Frame(IMAGE, i, i / 10), [])
    text = timeline_page(read_timeline(tmp_path / "t.jsonl"), title="<script>")
    assert "<script>" not in text
    assert "No face was read in any frame" in text
    assert "Apparent expression over time" in text
    with TableSink(tmp_path / "e.csv", LABELS):
        pass
    with pytest.raises(DataError, match="a table without rows"):
        read_timeline(tmp_path / "e.csv")


def test_rows_in_another_order_say_the_same(table, tmp_path):
    head, *lines = table.read_text().splitlines()
    (tmp_path / "sorted.csv").write_text("\n".join([head, *sorted(lines, key=lambda line: line.split(",")[4])]) + "\n")
    one, other = read_timeline(table), read_timeline(tmp_path / "sorted.csv")
    assert (one.frames, one.step, one.filled) == (other.frames, other.step, other.filled)
    assert all(np.array_equal(p.probabilities, q.probabilities) for p, q in zip(one.people, other.people, strict=True))


def rewritten(table, path, change, mark=","):
    """The table as another program writes it: each row, its header too, changed."""
    with table.open(newline="") as file, path.open("w", newline="", encoding="utf-8-sig") as out:
        csv.writer(out, delimiter=mark).writerows(map(change, csv.reader(file)))


WHOLE = (1, 3, 4, 12)  # index, face, track, certain


@pytest.mark.parametrize(
    ("change", "mark"),
    [
        (lambda row: [f"{text}.0" if i in WHOLE and text.isdecimal() else text for i, text in enumerate(row)], ","),
        (lambda row: [text or "NA" for text in row], ","),
        (lambda row: [*row[:12], {"1": "TRUE", "0": "FALSE"}.get(row[12], row[12]), *row[13:]], ","),
        (lambda row: [text.replace(".", ",") if i > 1 else text for i, text in enumerate(row)], ";"),
        (lambda row: [text or "NaN" for text in row], "\t"),
        (lambda row: [*row, "p_value" if row[0] == "image" else "0.9"], ","),
        (lambda row: ["" if row[0] == "image" else "7", *row, "session" if row[0] == "image" else "s1"], ","),
    ],
    ids=["pandas", "R", "truth", "Excel in Europe", "tabs", "a number more", "a word more"],
)
def test_a_table_that_went_through_another_program_says_the_same(table, tmp_path, change, mark):
    rewritten(table, tmp_path / "other.csv", change, mark)
    one, other = read_timeline(table), read_timeline(tmp_path / "other.csv")
    assert episodes_csv(other) == episodes_csv(one)
    assert other.labels == LABELS
    for name in ("source", "model", "smoothing", "frames", "step", "end", "filled"):
        assert getattr(other, name) == getattr(one, name)


def test_a_parquet_table_with_nan_for_unknown_says_the_same(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    with TableSink(tmp_path / "t.parquet", LABELS, image="a.mp4") as sink:
        for i in range(20):
            one = a_face(expression=an_expression("anger", 0.7, -0.4, 0.5), track=1)
            sink.write(Frame(IMAGE, i, i / 10), [one] if i < 15 else [])
    whole = parquet.read_table(tmp_path / "t.parquet")
    for place, name in enumerate(whole.column_names):
        if name in ("face", "track", "x0", "valence"):
            values = [float("nan") if v is None else float(v) for v in whole[name].to_pylist()]
            whole = whole.set_column(place, name, arrow.array(values))
    parquet.write_table(whole, tmp_path / "other.parquet")
    assert read_timeline(tmp_path / "other.parquet").filled == read_timeline(tmp_path / "t.parquet").filled == 1.5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a.mp4,3,0.3,", "a.mp4,3,nan,", "row 4: seconds is empty; expected a number"),
        ("a.mp4,3,0.3,", "a.mp4,3,,", "row 4: seconds is empty"),
        ("a.mp4,3,0.3,", "b.mp4,3,0.3,", r"row 4: is of b.mp4, the first of a.mp4"),
        (",arousal,", ",ar,", "no column 'arousal'"),
        (",0.3,1\n", ",0.3,one\n", "table_version is 'one'"),
        (",0.1,", ",01. Feb,", "line 2: arousal is '01. Feb'; expected a number"),
        ("0.0,0,1,", "0.0,0,1.5,", "line 2: track is '1.5'; expected a whole number"),
        ("0.1,0.8,", "0.1,8000,", "row 1: p_neutral is 8000.0; a probability is 0 to 1"),
        ("a.mp4,3,0.3,", "a.mp4,3,0.3,,", "line 5: has 37 values, its header 36"),
        ("a.mp4,3,0.3,", "\n\na.mp4,3,0.3,,", "line 7: has 37 values, its header 36"),
        ("p_neutral,", "added,p_neutral,", "has no column 'p_...' after 'arousal'"),
    ],
)
def test_a_damaged_table_says_where(table, tmp_path, old, new, message):
    (tmp_path / "odd.csv").write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_timeline(tmp_path / "odd.csv")


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_empty_lines_and_a_byte_order_mark_are_no_rows(name, tmp_path):
    with TableSink(tmp_path / name, LABELS, image="a.mp4") as sink:
        sink.write(Frame(IMAGE, 0, 0.0), [a_face(track=1)])
    (tmp_path / name).write_text((tmp_path / name).read_text() + "\n\n", encoding="utf-8-sig")
    assert read_timeline(tmp_path / name).frames == 1


def test_a_damaged_table_of_lines_says_where(tmp_path):
    with TableSink(tmp_path / "t.jsonl", LABELS, image="a.mp4") as sink:
        sink.write(Frame(IMAGE, 0, 0.0), [a_face(track=1)])
    (tmp_path / "t.jsonl").write_text((tmp_path / "t.jsonl").read_text().replace('"smoothing":0.0', '"smoothing":"no"'))
    with pytest.raises(DataError, match="row 1: smoothing is 'no'; expected a number"):
        read_timeline(tmp_path / "t.jsonl")


def test_a_summary_has_every_person_and_all_together(table, tmp_path, mien):
    """55 s of person 1, 20 of them happy, and 25 s of person 2, all angry."""
    code, _, err = mien("report", table, "--summary", "s.csv", "--out", "r.html")
    assert code == 0, err
    with (tmp_path / "s.csv").open() as file:
        one, two, everyone = csv.DictReader(file)
    assert [row["track"] for row in (one, two, everyone)] == ["1", "2", ""]
    assert [float(row["seconds"]) for row in (one, two, everyone)] == [55, 25, 80]
    assert float(one["share_happiness"]) == pytest.approx(20 / 55, abs=1e-4)
    assert (float(two["share_anger"]), float(two["valence"])) == (1, -0.4)
    assert float(everyone["share_happiness"]) == pytest.approx(20 / 80, abs=1e-4)
    assert float(everyone["valence"]) == pytest.approx((20 * 0.6 - 25 * 0.4) / 80, abs=1e-4)
    assert float(everyone["share_anger_low"]) < 25 / 80 < float(everyone["share_anger_high"])
    assert float(one["mean_happiness"]) == pytest.approx(
        summary(read_timeline(table).people[0], 0.1).means[LABELS.index("happiness")], abs=1e-4
    )
    text = (tmp_path / "r.html").read_text()
    for words in ("Everybody together", "All 2 tracks, 1:20 of faces in sum", "25.0 %"):
        assert words in text


@pytest.mark.usefixtures("table")
def test_reports_refuse_names_before_they_begin(mien, tmp_path):
    for words, message in [
        (("--out", "a.pdf"), "ends in .html"),
        (("--out", "a.html", "--episodes", "e.txt"), "no form of episodes"),
        (("--episodes", "e.csv", "--episodes", "./e.csv"), "named for two outputs"),
        (("--episodes", "t.csv", "--overwrite"), "is the table to read"),
        (("--summary", "t.csv", "--overwrite"), "is the table to read"),
        (("--summary", "s.xlsx"), "a summary is CSV"),
        (("--episodes", "e.csv", "--thumbnails", "a.mp4"), "does nothing without --out"),
    ]:
        code, _, err = mien("report", "t.csv", *words)
        assert (code, message in err) == (2, True), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]


@pytest.mark.parametrize("hours", [0.01, 1, 12, 100, 24 * 30])
def test_times_below_a_picture_neither_overlap_nor_leave_it(hours):
    none = np.zeros(0)
    words = [
        str(part)
        for part in _ticks(Bins(np.array([0, hours * 3600.0]), none, none, none, none, none), 0)
        if "text" in part
    ]
    names = [(float(re.search(r'x="([\d.]+)"', word)[1]), len(re.search(">(.*)<", word)[1]) * 7) for word in words]
    assert 1 < len(names) <= 10
    assert names[-1][0] + names[-1][1] / 2 <= _WIDTH
    assert all(b[0] - b[1] / 2 >= a[0] + a[1] / 2 for a, b in pairwise(names))
