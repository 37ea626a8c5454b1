"""Watching in Python: what is known of one video stays with it."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from builders import a_face, a_video, drawn_face
from mien.errors import ConfigError
from mien.faces import Frame
from mien.runtime.classify import Classifier
from mien.runtime.fakes import FakeDetector, FakeSession, FakeTracker
from mien.runtime.read import Reader
from mien.runtime.track import OverlapTracker
from mien.runtime.watch import Watching
from mien.vision.video import VideoInfo, frames


class Changing:
    """A session whose answers are told."""

    def __init__(self, *valences):
        self.valences, self.spec = list(valences), FakeSession().spec

    def run(self, chips):
        probabilities, _ = FakeSession().run(chips)
        affect = np.full((len(chips), 2), self.valences[0], np.float32)
        self.valences = self.valences[1:] or self.valences
        return probabilities, affect


def a_reader(session=None, faces=None):
    found = [a_face(expression=None)] if faces is None else faces
    return Reader(FakeDetector(found), Classifier(session or FakeSession()))


def seen(moving):
    """(track, valence) of each frame's first face."""
    return [(faces[0].track, round(faces[0].expression.valence, 3)) for _, faces in moving]


def test_the_same_settings_serve_another_video_without_the_first_one_s_people(tmp_path):
    a_video(tmp_path / "a.mp4", count=4)
    how = Watching(smoothing=0.3)
    low, high = a_reader(Changing(-0.9)), a_reader(Changing(0.9))
    assert seen(low.watch(tmp_path / "a.mp4", how=how)) == [(1, -0.9)] * 4
    assert seen(high.watch(tmp_path / "a.mp4", how=how)) == [(1, 0.9)] * 4
    elsewhere = a_reader(faces=[a_face((400.0, 10.0, 440.0, 60.0), expression=None)])
    assert {track for track, _ in seen(elsewhere.watch(tmp_path / "a.mp4", how=how))} == {1}


def test_two_videos_at_once_do_not_mix(tmp_path):
    a_video(tmp_path / "a.mp4", count=4)
    how = Watching(smoothing=0.3)
    moving = [a_reader(Changing(v)).watch(tmp_path / "a.mp4", how=how) for v in (-0.9, 0.9)]
    for (_, [low]), (_, [high]) in zip(*moving, strict=True):
        assert (low.track, high.track) == (1, 1)
        assert (low.expression.valence, high.expression.valence) == pytest.approx((-0.9, 0.9))


def test_each_video_gets_a_tracker_of_its_own(tmp_path):
    a_video(tmp_path / "a.mp4", count=3)
    made = []
    how = Watching(tracker=lambda: made.append(FakeTracker()) or made[-1])
    for _ in range(2):
        assert seen(a_reader().watch(tmp_path / "a.mp4", how=how)) == [(1, 0.5)] * 3
    assert [[round(time, 2) for time in tracker.times] for tracker in made] == [[0.0, 0.04, 0.08]] * 2
    for tracker in (FakeTracker(), OverlapTracker(), 3):
        with pytest.raises(ConfigError, match="tracker: give what makes one for each video"):
            Watching(tracker=tracker)


@pytest.mark.parametrize(
    ("source", "seconds", "how", "live"),
    [
        (0, None, None, True),
        (0, None, Watching(smoothing=0.3), True),
        (0, None, Watching(live=False), False),
        ("rtsp://door/live", None, None, True),
        ("rtsp://door/live", None, Watching(smoothing=0.3), True),
        ("https://films/a.mp4", 2.0, None, False),
        ("https://films/a.mp4", 2.0, Watching(live=True), True),
        ("a.mp4", None, None, False),
    ],
)
def test_a_camera_and_a_stream_without_an_end_are_live(source, seconds, how, live, monkeypatch):
    """Live: frames that come faster than they can be read are let go."""

    def quick(*_):
        for index in range(60):
            time.sleep(0.002)
            yield Frame(drawn_face(), index, index / 100)

    class Slow(FakeDetector):
        def __call__(self, image):
            time.sleep(0.02)
            return super().__call__(image)

    monkeypatch.setattr("mien.vision.video.frames", quick)
    monkeypatch.setattr("mien.vision.video.video_info", lambda _: VideoInfo(96, 96, None, seconds, 30.0))
    reader = Reader(Slow([a_face(expression=None)]), Classifier(FakeSession()))
    found = [frame.index for frame, _ in reader.watch(source, how=how)]
    assert found == sorted(found)
    assert (len(found) < 60) == live


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"part": 0}, "part: 0: give seconds above 0"),
        ({"gap": -1.0}, "gap: -1.0: give seconds from 0 on"),
        ({"smoothing": float("nan")}, "smoothing: nan: give seconds from 0 on"),
        ({"most": 0}, "most: 0: give a whole number of faces from 1 on"),
        ({"least": -3}, "least: -3: give pixels"),
        ({"gap": "x"}, "gap: 'x': give seconds from 0 on"),
        ({"smoothing": None}, "smoothing: None: give seconds from 0 on"),
        ({"most": True}, "most: True: give a whole number of faces from 1 on"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Watching(**fields)
    assert Watching(most=np.int64(2), least=0, gap=1, smoothing=0, part=3).most == 2


@pytest.mark.parametrize("every", [0, -1, 1.5, None])
def test_each_zeroth_frame_is_refused_at_once(every, tmp_path):
    a_video(tmp_path / "a.mp4")
    with pytest.raises(ConfigError, match="every: .* give a whole number from 1 on"):
        a_reader().watch(tmp_path / "a.mp4", every=every)
    for fields in ({"rate": 0}, {"rate": float("nan")}, {"gap": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(fields))):
            frames(tmp_path, **fields)


@pytest.mark.parametrize(
    ("source", "times", "message"),
    [
        ("a.mp4", {"begin": "1:30"}, "begin: '1:30': give seconds, such as 90.0 for 1:30"),
        ("a.mp4", {"begin": float("nan")}, "begin: nan: give seconds"),
        ("a.mp4", {"end": "2"}, "end: '2': give seconds"),
        (["a.mp4", "b.mp4"], {}, "expected one file, .* not list; of several, read one after another"),
        (["rtsp://a", "rtsp://b"], {}, "expected one file, .* not list"),
        (None, {}, "expected one file, .* not NoneType"),
    ],
)
def test_times_and_sources_that_are_none_are_refused_at_once(source, times, message):
    with pytest.raises(ConfigError, match=message):
        a_reader().watch(source, **times)


def test_the_first_step_is_as_long_as_every_makes_it(tmp_path):
    a_video(tmp_path / "a.mp4", gaps=[30.0] * 4, count=5)
    moving = a_reader().watch(tmp_path / "a.mp4", every=2)
    assert [(frame.seconds, face.track) for frame, [face] in moving] == [(0, 1), (60, 1), (120, 1)]


def test_a_number_of_numpy_s_is_a_camera(monkeypatch):
    asked = []

    def camera(number, every):
        asked.append((number, type(number), every))
        yield Frame(drawn_face(), 0, 0.0)

    monkeypatch.setattr("mien.vision.video._camera", camera)
    assert seen(a_reader().watch(np.int64(0))) == [(1, 0.5)]
    assert asked == [(0, int, 1)]


SCRIPT = """
import sys, threading, time
import mien.vision.video as video
from builders import a_face, drawn_face
from mien.faces import Frame
from mien.runtime.classify import Classifier
from mien.runtime.fakes import FakeDetector, FakeSession
from mien.runtime.read import Reader

def camera(*_):
    for index in range(10**9):
        if sys.argv[1] == "silent" and index == 20:
            threading.Event().wait()
        time.sleep(0.01)
        yield Frame(drawn_face(), index, index / 100)

video.frames = camera
moving = Reader(FakeDetector([a_face(expression=None)]), Classifier(FakeSession())).watch(0)
for _ in range(3):
    print(next(moving)[1][0].expression.label)
time.sleep(0.5)
if sys.argv[1] == "raises":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("way", ["ends", "silent", "raises"])
def test_a_script_that_still_holds_a_camera_s_frames_can_end(way):
    """Endless, or silent in the middle; the generator is neither closed nor exhausted."""
    words = [sys.executable, "-c", SCRIPT, way]
    done = subprocess.run(words, timeout=40, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3 if way == "raises" else 0, "happiness\n" * 3, "")
