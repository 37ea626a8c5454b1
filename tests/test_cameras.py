"""Cameras by number: as each system names and opens them."""

import sys
from types import SimpleNamespace

import av
import numpy as np
import pytest

from mien.errors import VideoError
from mien.vision import cameras
from mien.vision.video import frames
from mien.vision.writer import VideoWriter


@pytest.fixture
def elsewhere(monkeypatch):
    """Pretend to be another system, with these devices: (name, description, media types)."""

    def pretend(platform, *devices):
        monkeypatch.setattr(sys, "platform", platform)
        listed = [SimpleNamespace(name=name, description=words, media_types=kinds) for name, words, kinds in devices]
        monkeypatch.setattr(av, "enumerate_input_devices", lambda _: listed, raising=False)

    return pretend


def test_linux_lists_what_the_kernel_lists(monkeypatch, tmp_path):
    for number, name in ((10, "Other"), (0, "Integrated Camera")):
        (tmp_path / f"video{number}").mkdir()
        (tmp_path / f"video{number}" / "name").write_text(f"{name}\n")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(cameras, "_LINUX", tmp_path)
    assert list(cameras.cameras().items()) == [(0, "Integrated Camera"), (10, "Other")]
    assert cameras.opened_by(10) == ("v4l2", "/dev/video10")


def test_windows_opens_a_camera_by_its_name(elsewhere):
    elsewhere("win32", ("Mic", "Mic", ["audio"]), ("@device_pnp_1", "USB Camera", ["video"]))
    assert cameras.cameras() == {0: "USB Camera"}
    assert cameras.opened_by(0) == ("dshow", "video=@device_pnp_1")
    assert cameras.opened_by(3) == ("dshow", "video=3")


def test_a_mac_opens_a_camera_by_its_number(elsewhere):
    elsewhere("darwin", ("0", "FaceTime HD", ["video"]))
    assert cameras.cameras() == {0: "FaceTime HD"}
    assert cameras.opened_by(0) == ("avfoundation", "0")


class MacCamera:
    """A camera as FFmpeg shows it on macOS: it opens at 24 frames a second alone, and has no picture before it is asked twice."""

    def __init__(self, film, pictures):
        self._film, self.rest = film, pictures
        self.asked = []

    def open(self, place, format=None, container_options=None):  # noqa: A002 - av.open's name for it
        self.asked.append((place, format, container_options))
        if container_options != {"framerate": "24"}:
            raise OSError(5, "Input/output error")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __getattr__(self, name):
        return getattr(self._film, name)

    def decode(self, stream):
        picture = next(self._film.decode(stream)) if self.rest else None
        if picture is not None:
            self.rest -= 1
            yield picture
        raise av.error.BlockingIOError(35, "Resource temporarily unavailable")


def test_a_mac_s_camera_opens_at_a_rate_of_its_own_and_is_waited_for(elsewhere, monkeypatch, tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 32, 32) as writer:
        for number in range(8):
            writer.write(np.zeros((32, 32, 3), np.uint8), number / 24)
    elsewhere("darwin")
    camera = MacCamera(av.open(str(tmp_path / "a.mp4")), 4)
    monkeypatch.setattr(av, "open", camera.open)
    monkeypatch.setattr("mien.vision.video._SILENCE", 0.02)
    with pytest.raises(VideoError, match="camera 0: gone after 4 frames .* temporarily unavailable"):
        list(frames(0))
    assert camera.asked[0] == ("0", "avfoundation", {"framerate": "30"})
    assert camera.rest == 0


def test_a_camera_that_may_not_be_used_says_where_to_allow_it(elsewhere, monkeypatch):
    monkeypatch.setattr(av, "open", MacCamera(None, 0).open)
    monkeypatch.setattr(cameras, "_RATES", {})
    for platform, place in (("darwin", "System Settings, Privacy & Security, Camera"), ("win32", "Settings, Privacy")):
        elsewhere(platform)
        with pytest.raises(VideoError, match=f"camera 0: does not answer .*{place}"):
            list(frames(0))
