"""The page as a person meets it, in a headless Chromium: dropped pictures, a clip, a camera that is fed from a clip."""

import base64
import contextlib
import csv
import functools
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from apps.browser import Browser
from apps.browsing import EXAMPLE, WEB
from mien.apps.page import write_site
from mien.faces import Frame
from mien.runtime.read import load
from mien.runtime.sinks import open_table
from mien.runtime.store import ENTRIES, locate, model_file
from mien.vision.image import read_image
from mien.vision.video import VideoWriter

COUNT = itertools.count()
MODEL, DETECTOR = model_file("ferplus-small"), locate(ENTRIES["mien-face"])


class Quiet(SimpleHTTPRequestHandler):
    """Gives out files under the types that nginx knows; .mjs is not among them."""

    def log_message(self, *_):
        pass

    def guess_type(self, path):
        kinds = {".html": "text/html", ".css": "text/css", ".js": "application/javascript", ".json": "application/json"}
        kinds |= {".svg": "image/svg+xml", ".jpg": "image/jpeg", ".wasm": "application/wasm"}
        return kinds.get(Path(path).suffix, "application/octet-stream")


class Strict(Quiet):
    """Gives out files with a policy that allows no WebAssembly."""

    def end_headers(self):
        self.send_header("Content-Security-Policy", "default-src 'self'")
        super().end_headers()


@contextlib.contextmanager
def given(folder, kind):
    """The address at which a folder is given out."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(kind, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def address(folder, engine):  # noqa: ARG001
    """The static site, given out by a server that can do nothing but give out files."""
    write_site(folder / "site", load(threads=1), MODEL, DETECTOR)
    with given(folder / "site", Quiet) as place:
        yield place


def moving(image, count):
    """Frames of 640x480 that pan and zoom over a picture."""
    for i in range(count):
        zoom = 1.05 + 0.2 * np.sin(2 * np.pi * i / count)
        shift = 40 * np.sin(4 * np.pi * i / count)
        matrix = np.array([[zoom, 0, 320 - 230 * zoom + shift], [0, zoom, 240 - 200 * zoom]])
        yield cv2.warpAffine(image, matrix, (640, 480))


@pytest.fixture(scope="module")
def browser(folder, example):
    path = folder / "camera.mjpeg"
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=15)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
        for frame in moving(example, 30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    camera = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={path}"]
    with Browser(folder / "profile", *camera) as running:
        running.look(1280, 860)
        yield running


@pytest.fixture(scope="module")
def opened(browser, address):
    browser.open(address)
    return browser


@pytest.fixture
def page(opened, address):
    """The page, opened once; what a test does must bring no complaint and send nothing anywhere."""
    yield opened
    assert opened.problems() == []
    assert [sent for sent in opened.addresses() if not sent[1].startswith((address, "blob:", "data:"))] == []
    assert [sent for sent in opened.addresses() if sent[0] not in ("GET", "HEAD")] == []


def text(page, name):
    return page.js(f"document.getElementById('{name}').textContent")


def read(page):
    """What the chosen face shows, once something new was read."""
    page.until("document.getElementById('label').textContent.includes('%')")
    return text(page, "label")


def give(page, *files, drop=False):
    """Choose or drop files, and wait until they are read."""
    page.js("document.getElementById('label').textContent = ''")
    (page.drop if drop else page.give)(*files)
    return read(page)


def saved(page, folder, button):
    """What a button downloads."""
    place = folder / f"downloads-{next(COUNT)}"
    page("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(place))
    page.js(f"document.getElementById('{button}').click()")
    end = time.monotonic() + 20
    while not (files := [path for path in place.glob("*") if path.suffix != ".crdownload" and path.stat().st_size]):
        assert time.monotonic() < end
        time.sleep(0.05)
    return files[0]


def test_a_dropped_picture_is_read_here(page, folder):
    assert "no face leaves this machine" in text(page, "privacy-text")
    assert re.fullmatch(r"happiness (9\d|100) %", give(page, EXAMPLE, drop=True))
    assert text(page, "affect").startswith("valence +0.6")
    page.until("document.getElementById('status').textContent.startsWith('1 face: happiness')")
    assert page.js("document.getElementById('view').getAttribute('aria-label')") == "eileen_collins.jpg: 1 face"
    assert page.js("document.querySelectorAll('#plane .spot').length") == 1
    rows = list(csv.reader(saved(page, folder, "save-table").open()))
    reader = load(threads=1)
    with open_table(folder / "python.csv", reader.classifier.spec.labels) as sink:
        sink.write(Frame(read_image(EXAMPLE)), reader(EXAMPLE))
    ours = list(csv.reader((folder / "python.csv").open()))
    assert rows[0] == ours[0]
    mine, theirs = dict(zip(*ours, strict=True)), dict(zip(*rows, strict=True))
    assert theirs["table_version"] == mine["table_version"]
    assert theirs["image"] == "eileen_collins.jpg"
    for name in ("x0", "y1", "left_eye_x", "right_mouth_y"):
        assert float(theirs[name]) == pytest.approx(float(mine[name]), abs=3)
    assert float(theirs["p_happiness"]) == pytest.approx(float(mine["p_happiness"]), abs=0.02)
    picture = read_image(saved(page, folder, "save-picture"))
    assert picture.shape == (512, 512, 3)
    assert np.abs(picture.astype(int) - read_image(EXAMPLE)).max() > 100


def test_an_answer_below_the_threshold_is_said_to_be_not_certain(browser, folder, address, example):
    """In a picture and in a clip; `opened` goes back to the page of the other tests."""
    write_site(folder / "site" / "sure", load(threads=1), MODEL, DETECTOR)
    about = folder / "site" / "sure" / "page.json"
    known = json.loads(about.read_text())
    known["model"]["spec"]["threshold"] = 1.0
    about.write_text(json.dumps(known))
    clip = folder / "unsure.mp4"
    with VideoWriter(clip, 640, 480, rate=15) as writer:
        for i, frame in enumerate(moving(example, 15)):
            writer.write(frame, i / 15)
    try:
        browser.open(f"{address}sure/")
        for file in (EXAMPLE, clip):
            assert re.fullmatch(r"happiness \(not certain\) \d+ %", give(browser, file))
            name = "document.querySelector('#faces button').getAttribute('aria-label')"
            assert browser.js(name) == "Face 1: happiness (not certain)"
            browser.until("document.getElementById('status').textContent.includes('happiness (not certain)')")
        assert {row["certain"] for row in csv.DictReader(saved(browser, folder, "save-table").open())} == {"0"}
        assert browser.problems() == []
    finally:
        browser.open(address)
        browser.events.clear()


def test_several_pictures_and_one_that_is_none(page, folder, example):
    none = folder / "none.png"
    none.write_text("not a picture")
    two = folder / "two.png"
    cv2.imwrite(str(two), cv2.cvtColor(np.hstack([example, example[:, ::-1]]), cv2.COLOR_RGB2BGR))
    page.drop(two, none, EXAMPLE)
    page.until("document.getElementById('page').textContent === '1 of 2'")
    assert page.js("document.querySelectorAll('#faces button').length") == 2
    page.until("document.getElementById('notice-text').textContent.includes('none.png')")
    assert text(page, "notice-text").endswith("give JPEG, PNG or WebP.")
    page.js("document.querySelectorAll('#faces button')[1].click()")
    assert page.js("document.querySelectorAll('#faces button')[1].getAttribute('aria-pressed')") == "true"
    page.js("document.getElementById('after').click()")
    page.until("document.querySelectorAll('#faces button').length === 1")
    assert text(page, "page") == "2 of 2"
    assert page.js("document.getElementById('view').getAttribute('aria-label')") == "eileen_collins.jpg: 1 face"
    page.js("window.make = createImageBitmap; createImageBitmap = () => Promise.reject(new Error('gone'))")
    page.js("document.getElementById('before').click()")
    page.until("document.getElementById('notice-text').textContent.startsWith('two.png: ')")
    page.js("createImageBitmap = make; document.getElementById('after').click()")
    page.until("document.getElementById('notice').hidden && !document.getElementById('notice-text').textContent")


def test_many_pictures_are_not_kept_decoded_and_large_ones_are_read_as_they_are(page, folder):
    large = {"large.png": (300, 5000), "endless.png": (4, 70_000)}  # the second is more than a canvas holds
    for name, size in large.items():
        cv2.imwrite(str(folder / name), np.full(size, 255, np.uint8))
    code = "globalThis.made = []; const make = Document.prototype.createElement; Document.prototype.createElement = function (name) {"
    page.js(f"{code} const one = make.call(this, name); if (name === 'canvas') made.push(one); return one }}")
    page.js("document.getElementById('page').textContent = ''")
    page.give(EXAMPLE, EXAMPLE, *(folder / name for name in large))
    page.until("document.getElementById('busy').hidden && document.getElementById('page').textContent === '1 of 4'")
    assert page.js("made.filter((one) => one.width > 96).length") == 1
    page.js("Document.prototype.createElement = make; document.getElementById('before').click()")
    page.until("document.getElementById('view').width === 4096")
    page.js("document.getElementById('before').click()")
    page.until("document.getElementById('view').width === 5000")


def test_the_camera_at_an_interactive_rate_by_keyboard_alone(page):
    page.js("document.getElementById('choose').focus()")
    page.press("Tab")
    assert page.js("document.activeElement.id") == "camera"
    page.js("document.getElementById('label').textContent = ''")
    page.press("Enter")
    assert read(page).startswith("happiness")
    page.until("parseInt(document.getElementById('speed').textContent) >= 2")
    page.until(
        "/the last [2-9] seconds: mean happiness/.test(document.getElementById('timeline').getAttribute('aria-label'))"
    )
    assert re.fullmatch(r"face \d", text(page, "who"))
    dots = {page.js("document.querySelector('#plane .trail').getAttribute('points')") for _ in range(2)}
    assert all(dots)
    page.press("Escape")
    assert text(page, "camera") == "Camera"
    assert page.js("document.getElementById('save-table').disabled") is False


def test_the_camera_starts_again_and_a_picture_after_it_is_not_mirrored(page, folder, example):
    """Its frames stand still once it is off; an unreadable file then leaves what was read to be saved."""
    for _ in range(2):
        page.js("document.getElementById('label').textContent = ''")
        page.js("document.getElementById('camera').click()")
        assert read(page).startswith("happiness")
        page.until("document.getElementById('camera').textContent === 'Stop the camera'")
        page.js("document.getElementById('camera').click()")
        assert text(page, "camera") == "Camera"
    none = folder / "none.png"
    none.write_text("not a picture")
    page.give(none)
    page.until("document.getElementById('notice-text').textContent.includes('none.png')")
    assert text(page, "notice-text").endswith("give JPEG, PNG or WebP.")
    assert {row["image"] for row in csv.DictReader(saved(page, folder, "save-table").open())} == {"camera"}
    give(page, EXAMPLE)
    page.until("document.getElementById('view').getAttribute('aria-label').startsWith('eileen')")
    shown = base64.b64decode(page.js("document.getElementById('view').toDataURL('image/png')").split(",")[1])
    view = cv2.resize(read_image(shown), (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    small = cv2.resize(example, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(view - small).mean() < np.abs(view - small[:, ::-1]).mean() / 2


@pytest.fixture
def asked(page):
    """The page where the browser's question for the camera is answered after a while; window.streams are the cameras given."""
    page.js("""(() => {
        const media = navigator.mediaDevices, open = media.getUserMedia.bind(media);
        window.streams = [];
        media.getUserMedia = async (wanted) => {
            await new Promise((answered) => setTimeout(answered, 500));
            const stream = await open(wanted);
            window.streams.push(stream);
            return stream;
        };
    })()""")
    yield page
    page.js("delete navigator.mediaDevices.getUserMedia")


def live(page, given):
    """How many cameras are on, once so many were given."""
    page.until(f"window.streams.length === {given}")
    time.sleep(0.5)
    return page.js("window.streams.flatMap((s) => s.getTracks()).filter((t) => t.readyState === 'live').length")


def test_a_camera_that_is_no_longer_wished_for_goes_off(asked, folder):
    click = "document.getElementById('camera').click()"
    asked.js(f"{click}, {click}")
    assert live(asked, 2) == 1
    asked.until("document.getElementById('camera').textContent === 'Stop the camera'")
    asked.js(click)
    assert live(asked, 2) == 0
    asked.js(click)
    asked.press("Escape")
    assert live(asked, 3) == 0
    assert text(asked, "camera") == "Camera"
    asked.js(click)
    give(asked, EXAMPLE)
    assert live(asked, 4) == 0
    assert asked.js("document.getElementById('view').getAttribute('aria-label')") == "eileen_collins.jpg: 1 face"
    assert {row["image"] for row in csv.DictReader(saved(asked, folder, "save-table").open())} == {"eileen_collins.jpg"}


def test_a_clip_plays_and_is_read(page, folder, example):
    clip = folder / "clip.mp4"
    if not clip.exists():
        with VideoWriter(clip, 640, 480, rate=15) as writer:
            for i, frame in enumerate(moving(example, 45)):
                writer.write(frame, i / 15)
    assert give(page, EXAMPLE, clip, drop=True).startswith("happiness")
    assert text(page, "notice-text").startswith("clip.mp4 alone is read, 1 more file is left out: ")
    page.until("document.getElementById('play').textContent === 'Play again'", 30)
    rows = list(csv.DictReader(saved(page, folder, "save-table").open()))
    seconds = [float(row["seconds"]) for row in rows]
    assert len(rows) >= 3
    assert seconds == sorted(seconds)
    assert max(seconds) <= 3.1
    assert {row["track"] for row in rows if row["face"] == "0"} == {"1"}
    assert {row["index"] for row in rows} == {""}


def test_a_clip_that_is_played_again_is_in_its_table_once(page, folder, example):
    clip = folder / "short.mp4"
    with VideoWriter(clip, 640, 480, rate=15) as writer:
        for i, frame in enumerate(moving(example, 15)):
            writer.write(frame, i / 15)
    give(page, clip)
    for _ in range(2):
        page.until("document.getElementById('play').textContent === 'Play again'")
        rows, end = [], time.monotonic() + 20
        while not rows and time.monotonic() < end:
            time.sleep(0.5)  # its last frame is read
            table = csv.DictReader(saved(page, folder, "save-table").open())
            rows = [row for row in table if row["face"] == "0"]  # the largest of each frame
        seconds = [float(row["seconds"]) for row in rows]
        assert seconds == sorted(set(seconds))
        assert rows[0]["track"] == "1", "later ones may have others, where the machine is busy for seconds"
        page.js("document.getElementById('play').click()")


def test_the_timeline_of_a_clip_that_has_ended_follows_the_choice_and_the_window(page, folder, example):
    clip, one = folder / "two.mp4", example[:256, 96:352]
    with VideoWriter(clip, 512, 256, rate=15) as writer:
        for i in range(6):
            writer.write(np.hstack([one, one[:, ::-1]]), i / 15)
    give(page, clip)
    page.until("document.getElementById('play').textContent === 'Play again'")
    page.until("document.querySelectorAll('#faces button').length === 2")
    before = text(page, "who")
    page.js("document.querySelector('#faces button[aria-pressed=false]').click()")
    assert {before, text(page, "who")} == {"face 1", "face 2"}
    page.look(700, 800)
    page.until("document.getElementById('timeline').width === document.getElementById('timeline').clientWidth")
    page.look(1280, 860)


@pytest.mark.parametrize("width", [320, 390, 760, 1280])
def test_nothing_is_wider_than_the_window(page, width):
    page.look(width, 800, touch=width < 500)
    try:
        give(page, EXAMPLE)
        assert page.js("document.documentElement.scrollWidth") <= width
        sizes = page.js(
            "[...document.querySelectorAll('.tools button')].filter(b => b.offsetParent).map(b => b.offsetHeight)"
        )
        assert min(sizes) >= 44
    finally:
        page.look(1280, 860)


def test_everything_that_shows_something_has_a_name(page):
    give(page, EXAMPLE)
    tree = page("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "image", "region", "group", "textbox", "complementary", "status"}
    shown = [node for node in tree if not node["ignored"] and node["role"]["value"] in roles]
    assert len(shown) > 8
    quiet = {"status", "group"}
    assert [node["role"]["value"] for node in shown if not node.get("name", {}).get("value")
            and node["role"]["value"] not in quiet] == []  # fmt: skip
    assert any(node.get("name", {}).get("value") == "Face 1: happiness" for node in shown)


def test_motion_is_left_out_where_it_is_unwanted(page):
    page.look(1280, 860, still=True)
    try:
        give(page, EXAMPLE)
        assert page.js("getComputedStyle(document.querySelector('#plane .spot')).transitionProperty") == "none"
        assert page.js("getComputedStyle(document.querySelector('#plane .trail')).display") == "none"
    finally:
        page.look(1280, 860)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(theme):
    """WCAG 2: at least 4.5 to 1."""
    block = re.findall(r":root \{(.*?)\}", (WEB / "style.css").read_text(), re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): #(\w{6})", block))

    def light(name):
        parts = np.array([int(colours[name][i : i + 2], 16) for i in (0, 2, 4)]) / 255
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    pairs = [
        ("ink", "paper"),
        ("ink", "card"),
        ("dim", "paper"),
        ("dim", "card"),
        ("dim", "stage"),
        ("on-mark", "mark"),
        ("warn", "card"),
    ]
    for words, behind in pairs:
        low, high = sorted([light(words), light(behind)])
        assert (high + 0.05) / (low + 0.05) >= 4.5, (words, behind)


def test_an_example_that_does_not_come_is_told(page):
    page.js("globalThis.kept = fetch; globalThis.fetch = () => Promise.reject(new TypeError('offline'))")
    try:
        page.js("document.getElementById('example').click()")
        page.until("document.getElementById('notice-text').textContent.startsWith('The example does not come')")
        assert page.js("document.getElementById('notice').hidden") is False
    finally:
        page.js("globalThis.fetch = kept")


@pytest.fixture
def bare(browser, opened, address):
    """The same browser without WebAssembly."""
    opened.events.clear()
    code = "delete globalThis.WebAssembly"
    name = browser("Page.addScriptToEvaluateOnNewDocument", source=code)["identifier"]
    yield browser
    browser("Page.removeScriptToEvaluateOnNewDocument", identifier=name)
    browser.open(address)
    browser.events.clear()


def test_without_webassembly_the_server_reads_and_the_page_says_so(bare):
    command = [sys.executable, "-m", "mien", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            place = re.search(r"http://\S+", server.stdout.readline())[0]
            bare.open(place)
            assert text(bare, "privacy-text").startswith("Pictures go to the server at 127.0.0.1")
            assert "no WebAssembly" in text(bare, "privacy-text")
            bare.give(EXAMPLE)
            assert read(bare).startswith("happiness")
            assert ("POST", f"{place}predict") in bare.addresses()
            assert bare.problems() == []
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
    assert server.returncode == 0


def test_a_static_page_without_webassembly_says_that_it_cannot(bare, address):
    bare.open(address)
    assert bare.js("document.documentElement.dataset.ready") == "none"
    assert "this browser has no WebAssembly" in text(bare, "notice-text")


def test_a_web_server_whose_policy_forbids_webassembly_is_told_what_to_allow(browser, opened, address, folder):  # noqa: ARG001
    with given(folder / "site", Strict) as place:
        browser.open(place)
        assert text(browser, "notice-text").endswith("its script-src must have 'wasm-unsafe-eval'.")
    browser.open(address)
    browser.events.clear()
