"""What `mien serve` takes for a clip, and for how long."""

import asyncio
import time

import av
import pytest

from apps.browsing import EXAMPLE
from builders import a_video
from mien.apps.jobs import Jobs, Opening, _Job, check_form, clip_kind, read_clip
from mien.apps.measures import Measures
from mien.apps.records import JobRecord
from mien.apps.settings import Settings
from mien.errors import VideoError
from test_video_forms import film


def test_only_containers_are_clips(tmp_path):
    a_video(tmp_path / "a.mp4", count=2)
    assert clip_kind((tmp_path / "a.mp4").read_bytes()[:16]) == "mp4"
    assert clip_kind(b"#EXTM3U\n") == ""
    assert [clip_kind(head + b"\nc=IN IP4 ::1") for head in (b"GIF8", b"GIF88a", b"OggS", b"FLV\x01")] == [""] * 4
    assert clip_kind(b"FLV\x01\x05\0\0\0\x09\0\0\0\0") == "flv"
    assert clip_kind(EXAMPLE.read_bytes()[:16]) == ""
    assert clip_kind(b"") == ""


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "form"),
    [
        ("a.mp4", "libx264", "yuv420p", "mp4"),
        ("a.mov", "libx264", "yuv420p", "mp4"),
        ("a.webm", "libvpx", "yuv420p", "matroska"),
        ("a.mkv", "mpeg4", "yuv420p", "matroska"),
        ("a.avi", "mjpeg", "yuvj420p", "avi"),
        ("a.gif", "gif", "rgb8", "gif"),
        ("a.flv", "flv", "yuv420p", "flv"),
        ("a.ogv", "libtheora", "yuv420p", "ogg"),
        ("a.mpg", "mpeg2video", "yuv420p", "mpeg"),
    ],
)
def test_every_form_that_is_promised_is_a_clip(name, codec, pix_fmt, form, tmp_path):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg cannot write {codec}")
    clip = film(tmp_path / name, codec, pix_fmt)
    assert clip_kind(clip.read_bytes()[:16]) == form
    check_form(clip)


def test_what_begins_like_a_clip_and_is_a_play_list_is_none(tmp_path):
    clip = tmp_path / "clip.bin"
    for head in (b"GIF89a\0\0\0\0", b"\x1aE\xdf\xa3"):
        clip.write_bytes(head + b"\nv=0\nc=IN IP4 127.0.0.1\nm=video 15004 RTP/AVP 96\na=rtpmap:96 H264/90000\n")
        assert clip_kind(clip.read_bytes()[:16])
        with pytest.raises(VideoError, match=r"clip.bin: cannot be read as a video of a known form"):
            read_clip(tmp_path, 1, Opening(model="ferplus-nano"), Settings(), print)


def test_a_clip_that_takes_too_long_ends_however_often_it_is_heard_of():
    class Child:
        ended = False

        def terminate(self):
            self.ended = True

        def is_alive(self):
            return False

        def poll(self, _):
            time.sleep(0.001)
            return True

        def recv(self):
            return {"frames": 1}

    async def followed() -> JobRecord:
        jobs = Jobs(Opening(model="none"), Settings(job_seconds=0.05), Measures())
        job = _Job(JobRecord(id="a", state="running"), process=Child())
        try:
            await asyncio.wait_for(jobs._follow(job, job.process), 5)
        finally:
            await jobs.close()
        assert job.process.ended
        return job.record

    record = asyncio.run(followed())
    assert (record.state, record.problem[:23], record.frames) == ("failed", "took longer than 0.05 s", 1)
