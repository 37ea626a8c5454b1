"""Video in every form: codecs, depths, rotation, odd pixels, variable rates, folders, streams that die and come back."""

import errno
import http.server
import itertools
import re
import struct
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from builders import a_video
from mien.errors import VideoError
from mien.vision import video
from mien.vision.clock import Clock
from mien.vision.damage import torn
from mien.vision.image import write_image
from mien.vision.join import join
from mien.vision.video import VideoWriter, frames, video_info


def picture(i: int, width: int = 96, height: int = 64) -> np.ndarray:
    """Red left half, the rest grows brighter with its number."""
    image = np.full((height, width, 3), 40 + 15 * (i % 10), np.uint8)
    image[:, : width // 2] = (200, 30, 30)
    return image


def film(path, codec, pix_fmt="yuv420p", count=8, rate=25, square=None, muxer=None, **options):
    with av.open(str(path), "w", options=muxer or {}) as target:
        stream = target.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        if square:
            stream.codec_context.sample_aspect_ratio = square
        for i in range(count):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24").reformat(format=pix_fmt)))
        target.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p10le"),
        ("a.mp4", "libx265", "yuv420p10le"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_every_form_gives_its_frames(name, codec, pix_fmt, tmp_path):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg cannot write {codec}")
    options = {"x265-params": "log-level=none:pools=1:frame-threads=1"} if codec == "libx265" else {}
    got = list(frames(film(tmp_path / name, codec, pix_fmt, **options)))
    assert [frame.index for frame in got] == list(range(8))
    assert np.allclose([frame.seconds for frame in got], np.arange(8) / 25, atol=0.011)
    for i, frame in enumerate(got):
        assert np.abs(frame.image[20:40, 10:30].mean(axis=(0, 1)) - (200, 30, 30)).max() < 40
        assert abs(frame.image[20:40, 60:90].mean() - (40 + 15 * i)) < 20


def test_a_film_turned_by_its_flag_is_upright(tmp_path):
    """A phone held upright: the matrix of the track says to turn by a quarter, clockwise."""
    path = film(tmp_path / "a.mp4", "libx264")
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 64 * one, 0, 1 << 30)
    path.write_bytes(data)
    image = next(frames(path)).image
    assert image.shape == (96, 64, 3)
    assert image[10, 32, 0] > 150, "what was left is above"
    assert image[85, 32, 0] < 100


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_gap_near_the_rate_of_a_film_loses_no_frame_to_rounding(name, tmp_path):
    path = film(tmp_path / name, "libx264", count=90, rate=30)
    assert [frame.index for frame in frames(path, gap=1 / 30)] == list(range(90))
    assert [frame.index for frame in frames(path, gap=1 / 15)] == list(range(0, 90, 2))
    some = [frame.index for frame in frames(path, gap=1 / 12.5)]
    assert len(some) == 38
    assert {b - a for a, b in itertools.pairwise(some)} == {2, 3}


def with_cover(path, film):
    """A file with the picture of a cover, and, if so asked, a film beside it."""
    with av.open(str(path), "w", format="mp4") as target:
        moving = target.add_stream("libx264" if film else "aac", rate=25 if film else 8000)
        if film:
            moving.width, moving.height, moving.pix_fmt = 96, 64, "yuv420p"
        cover = target.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 32, 32, "yuvj420p", Disposition.attached_pic
        still = av.Packet(cv2.imencode(".jpg", picture(0, 32, 32))[1].tobytes())
        still.stream, still.pts, still.dts, still.is_keyframe = cover, 0, 0, True
        target.mux(still)
        for i in range(8 if film else 0):
            target.mux(moving.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        if film:
            target.mux(moving.encode())
    return path


def test_the_picture_of_a_cover_is_never_read(tmp_path):
    place = with_cover(tmp_path / "a.mp4", film=True)
    assert [frame.image.shape for frame in frames(place)] == [(64, 96, 3)] * 8
    assert video_info(place).tracks == 1
    with pytest.raises(VideoError, match="a.m4a: has no video stream, only the picture of its cover"):
        list(frames(with_cover(tmp_path / "a.m4a", film=False)))
    cover, moving = SimpleNamespace(disposition=Disposition.attached_pic), SimpleNamespace(disposition=Disposition(0))
    assert video._tracks(SimpleNamespace(streams=SimpleNamespace(video=(cover, moving)))) == [moving]


def test_of_two_tracks_the_first_is_read_and_told(mien, tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as target:
        tracks = [target.add_stream("libx264", rate=25) for _ in range(2)]
        for track, (width, height) in zip(tracks, [(96, 64), (64, 48)], strict=True):
            track.width, track.height, track.pix_fmt = width, height, "yuv420p"
        for i in range(2):
            for track in tracks:
                target.mux(
                    track.encode(av.VideoFrame.from_ndarray(picture(i, track.width, track.height), format="rgb24"))
                )
        for track in tracks:
            target.mux(track.encode())
    code, _, err = mien("watch", "a.mp4", "--table", "t.csv", "--detector", "whole", "--threads", "1")
    assert (code, "mien: a.mp4: has 2 tracks of pictures; the first is read (96x64)\n" in err) == (0, True)
    assert {frame.image.shape for frame in frames(tmp_path / "a.mp4")} == {(64, 96, 3)}


def test_odd_pixels_are_made_square(tmp_path):
    path = film(tmp_path / "a.mp4", "libx264", square=Fraction(4, 3))
    assert next(frames(path)).image.shape == (64, 128, 3)


def test_a_part_has_the_numbers_and_times_of_the_whole(tmp_path):
    gaps = [0.04, 0.2, 0.04, 0.04, 0.5, 0.04] * 15
    a_video(tmp_path / "a.mp4", count=len(gaps) + 1, gaps=gaps)

    def told(moving):
        return [(f.index, round(f.seconds, 5), int(f.image[5, 90, 0])) for f in moving]

    whole = told(frames(tmp_path / "a.mp4"))
    for begin, end, every in [(0, 2.0, 1), (3.3, 5.0, 1), (7.77, None, 3)]:
        wanted = [f for f in whole if begin <= f[1] and (end is None or f[1] < end) and f[0] % every == 0]
        assert told(frames(tmp_path / "a.mp4", every, begin, end)) == wanted
    with pytest.raises(VideoError, match=r"a\.mp4: no frame could be decoded from 99 s on"):
        list(frames(tmp_path / "a.mp4", begin=99))


def hiding(path, begin, length):
    """The film, made to be shown from `begin` on for `length` seconds only, as trimming without encoding does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # version, flags, one entry: its length in milliseconds, where it begins in the track
    start = struct.unpack_from(">i", data, at + 4)[0]
    struct.pack_into(">Ii", data, at, round(1000 * length), start + round(begin * 12800))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("begin", "length"), [(1.0, 1.0), (0.0, 1.0), (0.48, 0.6)])
def test_a_film_that_hides_frames_is_whole(begin, length, tmp_path):
    path = hiding(film(tmp_path / "a.mp4", "libx264", count=50), begin, length)
    got = list(frames(path))
    assert np.allclose([frame.seconds for frame in got], np.arange(round(25 * length)) / 25)
    assert abs(got[0].image[20:40, 60:90].mean() - (40 + 15 * (round(25 * begin) % 10))) < 20
    assert video_info(path)[2:4] == (len(got), length)


@pytest.mark.parametrize(("name", "options"), [
    ("a.mp4", {"movflags": "+faststart"}), ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ("a.mkv", {}), ("a.avi", {}), ("a.flv", {}),
])  # fmt: skip
def test_a_film_cut_off_is_told_in_every_form_that_says_its_length(name, options, tmp_path):
    path = film(tmp_path / name, "libx264", count=100, muxer=options, g="10")
    assert len(list(frames(path))) == len(list(frames(path, begin=1.0))) + 25 == 100
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    for begin in (0.0, 1.0):
        with pytest.raises(VideoError, match=r"cut off: \d+ frames \(.* of .* s\) could be decoded|damaged after"):
            list(frames(path, begin=begin))
    with pytest.raises(VideoError, match=r"cut off: \d+ frames \(.* of .* s\) could be decoded|damaged after"):
        list(frames(path, end=3.9))
    assert len(list(frames(path, end=1.0))) == 25, "what is missing was not asked for"


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_a_film_damaged_in_its_middle_is_read_to_its_end(name, tmp_path):
    path = film(tmp_path / name, "libx264", count=200, g="20")
    data = bytearray(path.read_bytes())
    half, size = len(data) // 2, len(data) // 10
    data[half : half + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)
    got = []
    with pytest.raises(VideoError, match=rf"{name}: damaged between \d\.\d\d and \d\.\d\d s.*; the rest was read"):
        got.extend((frame.index, frame.seconds) for frame in frames(path))
    assert 120 < len(got) <= 200
    assert abs(got[-1][1] - 199 / 25) < 0.011
    assert len(list(frames(path, end=2.0))) == 50, "the damage was not asked for"
    number, begin = got[-10]
    part = [(frame.index, frame.seconds) for frame in frames(path, begin=begin, number=number)]
    assert np.allclose(part, got[-10:])


@pytest.mark.parametrize(("codec", "fill"), [("libx264", b""), ("mjpeg", b""), ("mjpeg", b"\0")])
def test_a_hole_in_a_matroska_file_is_told_to_its_end(codec, fill, tmp_path):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = film(tmp_path / "a.mkv", codec, pixels, count=100, muxer={"cluster_time_limit": "400"}, g="10")
    data = path.read_bytes()
    half, size = len(data) // 2, len(data) // 6
    path.write_bytes(data[:half] + fill * size + data[half + size :])
    got = []
    with pytest.raises(VideoError, match=r"a\.mkv: damaged between .* s; the rest was read") as told:
        got.extend(frame.seconds for frame in frames(path))
    at = int(np.diff(got).argmax())
    assert got[at + 1] - got[at] > 0.3
    begin, end = map(float, re.findall(r"(\d\.\d\d) ", str(told.value))[:2])
    assert begin < got[at] + 0.01
    assert got[at + 1] - 0.01 < end < got[at + 1] + 0.4
    path.write_bytes(data)
    assert torn(path) == []


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_film_whose_sound_goes_on_or_whose_last_picture_stays_is_whole(name, tmp_path):
    times = [0.0, 0.5, 0.54, 2.5]
    with av.open(str(tmp_path / name), "w") as target:
        stream, sound = target.add_stream("libx264", rate=25), target.add_stream("aac", rate=8000)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i, seconds in enumerate(times):
            shown = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            shown.pts, shown.time_base = round(25 * seconds), Fraction(1, 25)
            target.mux(stream.encode(shown))
        target.mux(stream.encode())
        for start in range(0, 48_000, 1024):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            block.rate, block.pts = 8000, start
            target.mux(sound.encode(block))
        target.mux(sound.encode(None))
    assert np.allclose([frame.seconds for frame in frames(tmp_path / name)], times, atol=0.021)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data.replace(b"DURATION", b"DURATIOM"))  # only the length of everything is left
    assert len(list(frames(tmp_path / name))) == 4


#: H.264 whose pictures are decoded in another order than they are shown.
MIXED = {"x264-params": "b-adapt=0:bframes=3:keyint=20:scenecut=0:log-level=none"}


@pytest.fixture(params=["mixed.avi", "joined.ts"])
def disordered(request, tmp_path):
    """A film of 100 frames, 25 a second, that gives its times in another order or begins anew after 60 frames."""
    if request.param == "mixed.avi":
        return film(tmp_path / "mixed.avi", "libx264", count=100, **MIXED)
    parts = [film(tmp_path / f"{count}.ts", "libx264", count=count).read_bytes() for count in (60, 40)]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    return tmp_path / "joined.ts"


def test_time_never_goes_back(disordered):
    whole = list(frames(disordered))
    assert [frame.index for frame in whole] == list(range(100))
    assert np.allclose([frame.seconds for frame in whole], np.arange(100) / 25, atol=1e-3)
    part = list(frames(disordered, begin=3.0))
    assert [(frame.index, frame.seconds) for frame in part] == [(f.index, f.seconds) for f in whole[75:]]
    assert all((a.image == b.image).all() for a, b in zip(part, whole[75:], strict=True))


def test_a_clock_goes_on_after_a_leap_and_tells_two_frames_of_one_time_apart():
    clock = Clock(25.0)
    seconds = [clock(time) for time in (100.0, 100.04, 100.5, 0.0, 0.3, 0.3, 0.34)]
    assert np.allclose(seconds, [0, 0.04, 0.5, 0.54, 0.84, 0.841, 0.88])
    from_the_middle = Clock(25.0, zero=90.0)
    assert np.allclose([from_the_middle(time) for time in (100.0, 100.04)], [10, 10.04])


@pytest.mark.parametrize("stray", [[9.2], [9.2, 9.24, 9.28], [9.2, 9.1, 9.3]])
def test_frames_far_out_of_order_do_not_move_the_later_ones(stray):
    clock = Clock(25.0, 0.0)
    later = [10.2, 10.24, 10.28, 13.0, 13.04]
    seconds = [clock(time) for time in (10.0, 10.04, *stray, *later)]
    assert all(a < b for a, b in itertools.pairwise(seconds))
    assert np.allclose(seconds[-len(later) :], later)
    hole = Clock(25.0, 0.0)
    assert np.allclose([hole(time) for time in (10.0, 9.0, 15.0, 15.04)], [10, 10.04, 15, 15.04])
    full = Clock(25.0, 0.0)
    assert np.allclose(
        [full(time) for time in (10.0, 10.04, 10.08, 9.2, 10.12, 10.16)], [10, 10.04, 10.08, 10.12, 10.121, 10.16]
    )


def test_a_gif_can_be_read_from_its_middle(tmp_path):
    path = film(tmp_path / "a.gif", "gif", "rgb8", count=20, rate=10)
    assert [frame.index for frame in frames(path, begin=1.0)] == list(range(10, 20))


def test_a_folder_of_frames(tmp_path):
    for i in (1, 2, 10):
        write_image(tmp_path / f"frame{i}.png", picture(i))
    got = list(frames(tmp_path, rate=10))
    assert [(f.index, f.seconds, int(f.image[0, 95, 0])) for f in got] == [(0, 0.0, 55), (1, 0.1, 70), (2, 0.2, 40)]
    assert video_info(tmp_path, 10)[:5] == (96, 64, 3, 0.3, 10)
    (tmp_path / "frame①1.png").write_bytes((tmp_path / "frame10.png").read_bytes())
    assert len(list(frames(tmp_path))) == 4, "a digit in a circle is no number"
    (tmp_path / "frame①1.png").unlink()
    for hidden in ("._frame1.png", "._frame2.png"):
        (tmp_path / hidden).write_bytes(b"what macOS keeps beside a picture")
    assert [(f.index, f.seconds) for f in frames(tmp_path, rate=10)] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert video_info(tmp_path, 10)[:5] == (96, 64, 3, 0.3, 10)
    (tmp_path / "frame3.png").write_bytes(b"no picture")
    got = []
    with pytest.raises(VideoError, match=r"1 of 4 pictures could not be read; the first: .*frame3\.png"):
        got.extend(frame.index for frame in frames(tmp_path))
    (tmp_path / "frame0.png").write_bytes(b"no picture")
    assert video_info(tmp_path, 10)[:3] == (96, 64, 5), "of the first one that can be read"
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match=r"none of 1 pictures could be read; the first: .*a\.png: is not an image"):
        video_info(tmp_path / "damaged")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="a folder without pictures .*; of videos name one"):
        list(frames(tmp_path / "empty"))


def test_a_film_without_pictures_and_a_busy_camera_say_so(tmp_path, monkeypatch):
    with av.open(str(tmp_path / "sound.mp4"), "w") as target:
        stream = target.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        target.mux(stream.encode(sound))
        target.mux(stream.encode(None))
    with pytest.raises(VideoError, match=r"sound\.mp4: has no video stream"):
        list(frames(tmp_path / "sound.mp4"))

    def busy(*_, **__):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr("av.open", busy)
    with pytest.raises(VideoError, match="camera 0: in use by another program; close it there"):
        list(frames(0))


@pytest.fixture
def streamed(tmp_path):
    """A server of one MPEG-TS film that breaks off: each connection gets the next of `parts`, so many bytes or bytes of its
    own (None: refused)."""
    film(tmp_path / "a.ts", "libx264", count=50, g="5")
    data = (tmp_path / "a.ts").read_bytes()
    parts: list[int | bytes | None] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            size = parts.pop(0) if parts else None
            if size is None:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            self.wfile.write(size if isinstance(size, bytes) else data[:size])

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/live.ts", parts, len(data)
    running.shutdown()
    running.server_close()


def test_a_stream_that_dies_is_read_on_when_it_comes_back(streamed):
    address, parts, size = streamed
    parts += [size // 2, None, size // 2]
    told, got = [], []
    with pytest.raises(VideoError, match=r"the stream died after \d+ frames \(.* did not come back within 1 s"):
        for frame in frames(address, patience=1.0, tell=told.append):
            got.append((frame.index, frame.seconds))
    assert 25 <= len(got) <= 50
    assert [index for index, _ in got] == list(range(len(got)))
    assert all(a[1] < b[1] for a, b in itertools.pairwise(got))
    assert got[-1][1] < 30
    assert "trying again for 1 s" in told[0]
    assert len(told) == 2


def test_a_stream_whose_clock_begins_anew_is_read_on(streamed, tmp_path):
    address, parts, _ = streamed
    parts.append(b"".join(film(tmp_path / f"{count}.ts", "libx264", count=count).read_bytes() for count in (60, 40)))
    got = []
    with pytest.raises(VideoError, match="the stream died after"):
        got.extend(frame.seconds for frame in frames(address, patience=0.5))
    assert len(got) > 90, "all but those that the decoder still held when the stream died"
    assert np.allclose(got, np.arange(len(got)) / 25, atol=1e-3)


def test_motion_jpeg_has_the_times_at_which_its_pictures_come(streamed, monkeypatch):
    address, parts, _ = streamed  # the form has no times; FFmpeg counts 25 a second, whatever the camera gives
    jpeg = cv2.imencode(".jpg", picture(0))[1].tobytes()
    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
    parts.append((head + jpeg + b"\r\n") * 10)
    ticks = itertools.count(100.0, 0.5)
    monkeypatch.setattr(video, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    got = []
    with pytest.raises(VideoError, match="the stream died after 10 frames"):
        got.extend(frame.seconds for frame in frames(address, patience=0.0))
    assert got == [0.5 * i for i in range(10)], "one look at the clock for each"


def test_an_address_that_never_answers_is_one_error(streamed):
    address, _, _ = streamed
    with pytest.raises(VideoError, match=r"live\.ts: cannot be read as a video"):
        list(frames(address, patience=5.0))


def test_a_film_that_begins_late_in_its_file_is_whole(tmp_path):
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        for i in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * i % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i + 125, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert [round(frame.seconds, 2) for frame in frames(path)][-1] == 1.96


def test_a_name_with_a_colon_is_a_file(tmp_path, monkeypatch):
    """macOS' Finder shows it as a slash; FFmpeg takes what stands before it for a kind of address."""
    monkeypatch.chdir(tmp_path)
    with VideoWriter("2026-11-28T10:30.mp4", 32, 32) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8), 0.0)
    assert video_info("2026-11-28T10:30.mp4")[:2] == (32, 32)
    assert len(list(frames("2026-11-28T10:30.mp4"))) == 1
    (tmp_path / "12:30").mkdir()
    Path("2026-11-28T10:30.mp4").replace("12:30/00.mp4")
    join([Path("12:30/00.mp4")], Path("12:31.mp4"), "12:30/00.mp4", 0.0)
    assert Path("12:31.mp4").is_file()
