"""Tracking, smoothing, following: who is who, over seconds and not over frames."""

import itertools
import json
import math
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from builders import a_face, an_expression, drawn_face
from mien.runtime.fakes import FakeDetector, FakeTracker
from mien.runtime.follow import Finder, Follower, is_cut, thumbnail
from mien.runtime.pipeline import newest, overlapped
from mien.runtime.track import OverlapTracker, Smoother, assigned


def a_box(x: float, y: float = 50.0, side: float = 40.0):
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def tracks_of(tracker, scenes):
    """Track numbers of scenes: [(seconds, {name: x})] -> {name: [numbers]}."""
    seen: dict[str, list[int]] = {}
    for seconds, people in scenes:
        faces = tracker([a_face(a_box(x)) for x in people.values()], seconds)
        for name, face in zip(people, faces, strict=True):
            seen.setdefault(name, []).append(face.track)
    return seen


@pytest.mark.parametrize("rate", [5, 10, 30, 60])
def test_two_who_cross_keep_their_numbers_at_any_rate(rate):
    """They pass each other; while they overlap only the nearer one is found."""
    scenes = []
    for i in range(2 * rate + 1):
        t = i / rate
        people = {"near": 40 + 100 * t, "far": 240 - 100 * t}
        if abs(people["near"] - people["far"]) < 30:
            del people["far"]
        scenes.append((t, people))
    seen = tracks_of(OverlapTracker(), scenes)
    assert set(seen["near"]) == {1}
    assert set(seen["far"]) == {2}


def test_who_takes_the_chair_within_two_seconds_goes_on_with_the_number():
    """As docs/watching.md says: faces are not recognised."""
    there = {0.0: "first", 0.1: "first", 2.0: "next", 2.1: "next", 4.2: "later"}
    seen = tracks_of(OverlapTracker(), [(t, {there[t]: 100.0} if t in there else {}) for t in np.arange(43) / 10])
    assert seen == {"first": [1, 1], "next": [1, 1], "later": [2]}


def test_a_miss_a_way_behind_a_pillar_and_a_newcomer():
    tracker = OverlapTracker()
    way = [(i / 10, {"walker": 20 + 4 * i}) for i in range(40) if i not in (5, 11, 12) and not 20 <= i < 30]
    assert set(tracks_of(tracker, way)["walker"]) == {1}
    [other] = tracker([a_face(a_box(500))], 4.1)
    assert other.track == 2
    [late] = tracker([a_face(a_box(500))], 10.0)
    assert late.track == 3, "after the patience it is someone else"


@pytest.mark.parametrize("gap", [1.9, 2.5, 3.0, 20.0])
def test_frames_far_apart_keep_their_people(gap):
    """Sampling is not absence: only frames that were read count; who is away for more than one of them is gone."""
    still = [(gap * i, {"one": 50, "two": 250}) for i in range(6)]
    assert tracks_of(OverlapTracker(), still) == {"one": [1] * 6, "two": [2] * 6}
    away = [(gap * i, {"one": 50} if i in (2, 3, 4) else {"one": 50, "two": 250}) for i in range(6)]
    assert tracks_of(OverlapTracker(), away) == {"one": [1] * 6, "two": [2, 2, 3]}
    uneven = np.cumsum([0.0, *[gap, 0.8 * gap, 1.3 * gap] * 4])
    assert set(tracks_of(OverlapTracker(), [(t, {"one": 50}) for t in uneven])["one"]) == {1}


def test_a_lost_face_is_expected_for_as_long_as_its_track_lives():
    tracker = OverlapTracker()
    for i in range(3):
        tracker([a_face(a_box(50))], 3.0 * i)
    tracker([], 9.0)
    assert tracker.away(9.0) == [a_box(50)]


def test_a_time_that_goes_back_counts_as_the_same_time():
    tracker, smoother = OverlapTracker(), Smoother(0.3)
    for seconds in (0.0, 0.1, 2000.0, 2000.1, 0.0, 0.1):
        [face] = smoother(tracker([a_face(a_box(50))], seconds), seconds)
    assert face.track == 2, "only the leap forward was longer than the patience"
    assert np.isclose(face.expression.probabilities.sum(), 1)


def test_faces_and_order_stay_and_no_number_is_given_twice():
    rng, tracker = np.random.default_rng(0), OverlapTracker(patience=0.2)
    highest = 0
    for i in range(60):
        faces = [a_face(a_box(x, y), score=float(k)) for k, (x, y) in enumerate(rng.uniform(0, 600, (6, 2)))]
        given = tracker(faces, i / 10)
        assert [(f.box, f.score) for f in given] == [(f.box, f.score) for f in faces]
        numbers = [f.track for f in given]
        assert len(set(numbers)) == len(numbers)
        fresh = sorted(n for n in numbers if n > highest)
        assert fresh == list(range(highest + 1, highest + 1 + len(fresh)))
        highest += len(fresh)
    assert tracker([], 9.0) == []


def test_a_cut_begins_new_numbers_and_who_is_away_is_expected_somewhere():
    tracker = OverlapTracker()
    for i in range(5):
        tracker([a_face(a_box(100 + 10 * i))], i / 10)
    [(x0, _, x1, _)] = tracker.away(0.5)
    assert 145 < (x0 + x1) / 2 < 155
    tracker.cut()
    assert (tracker.away(0.5), tracker([a_face(a_box(150))], 0.5)[0].track) == ([], 2)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (5, 2), (4, 6), (5, 5), (0, 3), (3, 0)])
def test_the_pairing_has_the_least_cost(shape):
    rng = np.random.default_rng(sum(shape))
    for _ in range(20):
        costs = rng.integers(0, 9, shape).astype(float)
        pairs = assigned(costs)
        assert len(pairs) == min(shape) == len(set(pairs.values()))
        small, large = sorted(shape)
        wide = costs if shape[0] <= shape[1] else costs.T
        ways = itertools.permutations(range(large), small)
        least = min(sum(wide[i, way[i]] for i in range(small)) for way in ways)
        assert sum(costs[r, c] for r, c in pairs.items()) == least


def smoothed(constant, *readings):
    """The valence after each reading (seconds, valence) of one person."""
    smoother, found = Smoother(constant), []
    for seconds, valence in readings:
        [face] = smoother([a_face(track=1, expression=an_expression(valence=valence))], seconds)
        found.append(face.expression.valence)
    return found


@pytest.mark.parametrize("rate", [10, 50])
def test_smoothing_is_over_seconds(rate):
    """After a long time a step is 1 - exp(-t / constant) done after t seconds, whatever the frame rate."""
    smoother = Smoother(0.5)
    low = a_face(track=1, expression=an_expression("sadness", 0.9, -1.0, 0.0))
    high = a_face(track=1, expression=an_expression("happiness", 0.9, 1.0, 0.0))
    for i in range(10 * rate + 1):
        smoother([low], i / rate)
    for i in range(1, rate // 2 + 1):
        [face] = smoother([high], 10 + i / rate)
    assert face.expression.valence == pytest.approx(2 * (1 - math.exp(-1)) - 1, abs=1e-6)
    assert face.expression.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert face.expression.label == "happiness"


@pytest.mark.parametrize("rate", [5, 25, 100])
def test_the_first_reading_counts_as_any_other(rate):
    """It weighs 1/e of the present one after the constant, not as much as all frames before it might have."""
    *_, last = smoothed(0.5, (0.0, 1.0), *((i / rate, 0.0) for i in range(1, rate + 1)))
    weights = np.exp(-np.arange(rate + 1) / rate / 0.5)
    assert last == pytest.approx(weights[-1] / weights.sum(), abs=1e-9)


def test_smoothing_is_the_weighted_mean_of_readings_that_come_irregularly():
    rng = np.random.default_rng(3)
    times, values = np.cumsum(rng.exponential(0.2, 40)), rng.uniform(-1, 1, 40)
    for i, valence in enumerate(smoothed(0.3, *zip(times, values, strict=True))):
        weights = np.exp((times[: i + 1] - times[i]) / 0.3)
        assert valence == pytest.approx(np.average(values[: i + 1], weights=weights), abs=1e-9)


def test_an_unknown_value_is_unknown_in_its_frame_alone():
    before, unknown, after = smoothed(0.5, (0.0, 0.8), (0.1, math.nan), (0.2, 0.4))
    assert (before, math.isnan(unknown)) == (0.8, True)
    old = math.exp(-0.2 / 0.5)
    assert after == pytest.approx((0.8 * old + 0.4) / (old + 1))
    unknown, known = smoothed(0.5, (0.0, math.nan), (0.1, 0.4))
    assert (math.isnan(unknown), known) == (True, 0.4)


def test_smoothing_keeps_heat_and_features():
    read = replace(an_expression(), heat=np.ones((2, 2)), features=np.arange(3), threshold=0.6)
    [face] = Smoother(0.3)([a_face(track=1, expression=read)], 0.0)
    assert (face.expression.heat is read.heat, face.expression.features is read.features) == (True, True)
    assert (face.expression.labels, face.expression.threshold) == (read.labels, 0.6)


def test_smoothing_keeps_faces_apart_and_off_is_off():
    faces = [a_face(track=None), a_face(track=1, expression=None), a_face(track=2)]
    assert Smoother(0.3)(faces, 0.0)[:2] == faces[:2]
    assert Smoother(0)(faces, 0.0) == faces
    smoother = Smoother(1.0)
    smoother([a_face(track=1, expression=an_expression(valence=-1.0))], 0.0)
    [one, two] = smoother([a_face(track=1), a_face(track=2, expression=an_expression(valence=0.9))], 0.1)
    assert (one.expression.valence < 0, two.expression.valence) == (True, pytest.approx(0.9))


def test_tracker_and_smoother_go_on_from_their_state():
    def scene(i):
        valence = math.nan if i in (3, 30) else math.sin(i)
        return [a_face(a_box(20 + 5 * i), expression=an_expression(valence=valence)), a_face(a_box(300 - 5 * i))]

    def run(parts):
        tracker, smoother, rows = OverlapTracker(), Smoother(0.3), []
        for part in parts:
            again, calm = OverlapTracker(), Smoother(0.3)
            again.restore(json.loads(json.dumps(tracker.state(), allow_nan=False)))
            calm.restore(json.loads(json.dumps(smoother.state(), allow_nan=False)))
            tracker, smoother = again, calm
            for i in part:
                rows += [(f.track, repr(f.expression.valence)) for f in smoother(tracker(scene(i), i / 10), i / 10)]
        return rows

    assert run([range(50)]) == run([range(17), range(17, 31), range(31, 50)])


def test_the_fake_tracker_numbers_by_place():
    assert [face.track for face in FakeTracker()([a_face(), a_face()], 0.0)] == [1, 2]


def a_scene(dx: float = 0.0, seed: int = 0) -> np.ndarray:
    """Two hundred pixels of noise with a drawn face that moved."""
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.integers(0, 255, (200, 300, 3)).astype(np.uint8), (0, 0), 3)
    face = cv2.GaussianBlur(drawn_face(96), (0, 0), 1)
    turn = np.array([[1, 0, 100 + dx], [0, 1, 50]], np.float32)
    inside = cv2.warpAffine(np.ones((96, 96), np.float32), turn, (300, 200))[..., None]
    return (ground * (1 - inside) + cv2.warpAffine(face, turn, (300, 200)) * inside).astype(np.uint8)


def test_a_face_is_followed():
    marks = np.array([[133, 88], [163, 88], [148, 110], [132, 125], [164, 125]], np.float32)
    follower = Follower()
    follower.start(a_scene(), [a_face((100, 50, 196, 146), landmarks=marks)])
    for step in (4, 8, 12):
        [face] = follower(a_scene(step))
        assert np.allclose(face.landmarks, marks + np.array([step, 0]), atol=1.5)
        assert np.allclose(face.box, (100 + step, 50, 196 + step, 146), atol=2.5)
    noise = np.random.default_rng(1).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    assert follower(noise) is None, "another picture cannot be followed"


@pytest.mark.parametrize(("rate", "looks"), [(50, 5), (10, 5), (4, 4)])
def test_how_often_faces_are_looked_for_is_in_seconds(rate, looks):
    finder = Finder(FakeDetector([a_face((100, 50, 196, 146))]), gap=0.2)
    for i in range(rate):
        faces, cut = finder(a_scene(0.2 * i * 50 / rate), i / rate)
        assert (len(faces), cut) == (1, False)
    assert finder.looks == looks


def test_at_a_cut_faces_are_looked_for_at_once():
    finder = Finder(FakeDetector([]), gap=5.0)
    left, right = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80, 3), np.uint8)
    left[:, :40], right[:, 40:] = 220, 220
    assert [finder(image, i / 10)[1] for i, image in enumerate([left, left, right, right])] == [
        False,
        False,
        True,
        False,
    ]
    assert finder.looks == 2
    assert not is_cut(thumbnail(a_scene()), thumbnail(a_scene(10)))
    assert not is_cut(thumbnail(a_scene()), thumbnail((a_scene() * 0.6).astype(np.uint8))), "a dimmed light is no cut"


def test_stages_overlap_in_order_and_few_items_are_on_the_way():
    made, most, lock = [0], [0], threading.Lock()

    def source():
        for i in range(60):
            with lock:
                made[0] += 1
            yield i

    got = []
    for item in overlapped(source(), lambda x: x + 1, lambda x: 2 * x, depth=4):
        got.append(item)
        with lock:
            most[0] = max(most[0], made[0] - len(got))
    assert got == [2 * (i + 1) for i in range(60)]
    assert most[0] <= 5


def test_an_error_comes_after_what_was_before_it():
    def broken():
        yield from (1, 2)
        raise OSError("gone")

    got = []
    with pytest.raises(OSError, match="gone"):
        for item in overlapped(broken(), lambda x: x):
            got.append(item)
    assert got == [1, 2]


def test_of_a_live_source_the_newest_is_taken():
    def camera():
        for i in range(40):
            time.sleep(0.005)
            yield i

    got = []
    for item in newest(camera()):
        got.append(item)
        time.sleep(0.03)
    assert got == sorted(got)
    assert len(got) < 20
    assert got[-1] == 39


@pytest.mark.parametrize(
    ("times", "numbers"),
    [
        ([*(i * 0.04 for i in range(50)), 62, 62.04, 62.08, 122.1, 122.14], [*[1] * 50, 2, 2, 2, 3, 3]),
        ([0, 60, 60.04, 60.08], [1, 2, 2, 2]),
        ([0, 2.1, 4.2, 6.3, 8.4], [1] * 5),
        ([0, 8, 16, 24], [1] * 4),
        ([0, 2.5, 5, 65, 67.5], [1, 1, 1, 2, 2]),
    ],
)
def test_holes_end_numbers_and_a_slow_pace_does_not(times, numbers):
    tracker = OverlapTracker()
    assert [tracker([a_face()], seconds)[0].track for seconds in times] == numbers


def test_a_first_step_that_is_expected_is_no_hole():
    tracker = OverlapTracker()
    tracker.expect(60.0)
    assert [tracker([a_face()], seconds)[0].track for seconds in (0, 60, 120, 180)] == [1] * 4
    tracker = OverlapTracker()
    tracker.expect(0.04)
    assert [tracker([a_face()], seconds)[0].track for seconds in (0, 60, 60.04)] == [1, 2, 2]
