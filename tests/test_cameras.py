"""Cameras by number: as each system names them."""

import sys
from types import SimpleNamespace

import av
import pytest

from mien.vision import cameras


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
