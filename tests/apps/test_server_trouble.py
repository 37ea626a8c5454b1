"""mien serve where something goes wrong beneath it: no process, no room, files that change, clients that never end."""

import asyncio
import contextlib
import errno
import json
import os
import re
import shutil
import socket
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path

import httpx
import pytest

from apps.test_server import CLIENT, Server, finished, png
from builders import a_video, drawn_face
from mien.apps.jobs import Jobs, Opening
from mien.apps.measures import Measures
from mien.apps.server import create_app
from mien.apps.settings import Settings
from mien.runtime.classify import Classifier
from mien.runtime.fakes import FakeDetector, FakeSession
from mien.runtime.read import Reader
from mien.runtime.store import model_file

MODEL = model_file("ferplus-nano")


def an_app(detector=None, model=MODEL, **limits):
    """The application around fakes; it is not started, so it reads no clips. model: the file that its page loads."""
    reader = Reader(detector or FakeDetector([]), Classifier(FakeSession()))
    return create_app(reader, Settings(**limits), Opening(model="fake"), model, None)


def a_client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


def post(app, body, kind, route="predict"):
    async def ask():
        async with a_client(app) as client:
            return await client.post(f"/{route}", content=body, headers={"content-type": kind})

    return asyncio.run(ask())


class SlowDetector:
    """Finds nothing, slowly; counts the looks that began and ended."""

    begun = ended = 0

    def __call__(self, _):
        self.begun += 1
        time.sleep(0.1)
        self.ended += 1
        return []


def test_a_clip_without_a_process_has_failed_and_the_next_is_read(monkeypatch, tmp_path):
    def no_process(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def two_clips():
        jobs = Jobs(Opening(model="ferplus-nano"), Settings(), Measures())
        for _ in range(2):
            with jobs.arrival() as (name, place):
                place.write_bytes(b"a clip")
                jobs.add(name, 1)
        async with asyncio.timeout(10):
            while jobs.pending:
                await asyncio.sleep(0.01)
        await jobs.close()
        return jobs.all()

    monkeypatch.setattr(SpawnProcess, "start", no_process)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    records = asyncio.run(two_clips())
    assert [record.state for record in records] == ["failed", "failed"]
    assert "no process could be started for it ([Errno 24] Too many open files)" in records[0].problem
    assert list(tmp_path.iterdir()) == []


def test_clips_are_taken_after_the_temporary_folder_was_removed(tmp_path):
    a_video(tmp_path / "a.mp4", count=2)
    clip = {"content": (tmp_path / "a.mp4").read_bytes(), "headers": {"content-type": "video/mp4"}}
    (tmp_path / "temporary").mkdir()
    with Server(tmp_path, TMPDIR=str(tmp_path / "temporary")) as server:
        first = CLIENT.post(f"{server.url}/watch", **clip).json()["id"]
        assert finished(server, first)["state"] == "done"
        [folder] = (tmp_path / "temporary").glob("mien-serve-*")
        shutil.rmtree(folder)
        gone = CLIENT.get(f"{server.url}/watch/{first}/table")
        assert (gone.status_code, gone.json()["detail"].split(";")[1]) == (404, " send the clip again")
        second = CLIENT.post(f"{server.url}/watch", **clip).json()["id"]
        assert finished(server, second)["state"] == "done"
        assert CLIENT.get(f"{server.url}/watch/{second}/table").status_code == 200
        assert [path.stat().st_mode & 0o777 for path in (tmp_path / "temporary").glob("mien-serve-*")] == [0o700]
    assert list((tmp_path / "temporary").glob("mien-serve-*")) == []


def test_a_clip_that_cannot_be_removed_does_not_end_the_reading(monkeypatch, tmp_path):
    async def nothing(*_):
        pass

    def refused(_, missing_ok):  # noqa: ARG001
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def one_clip():
        jobs = Jobs(Opening(model="fake"), Settings(), Measures())
        with jobs.arrival() as (name, _):
            jobs.add(name, 1)
        await asyncio.sleep(0.05)
        running = not jobs._loop.done()
        await jobs.close()
        return running

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Jobs, "_run", nothing)
    monkeypatch.setattr(Path, "unlink", refused)
    assert asyncio.run(one_clip())


def test_after_a_bad_picture_of_a_form_nothing_of_it_is_left_in_work():
    detector = SlowDetector()
    app = an_app(detector, workers=2)
    files = [
        ("images", (f"{i}.png", data, "image/png")) for i, data in enumerate([b"none", *[png(drawn_face(32))] * 9])
    ]

    async def ask():
        async with a_client(app) as client:
            answer = await client.post("/predict", files=files)
            at_once = detector.begun, detector.ended
            await asyncio.sleep(0.3)
            return answer, at_once

    answer, (begun, ended) = asyncio.run(ask())
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("0.png: ")
    assert begun == ended == detector.begun < 4
    assert app.busy == 0


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A server that waits for nobody longer than a second."""
    limits = ("--seconds", "1", "--max-bytes", "1000", "--model", "ferplus-small")
    with Server(tmp_path_factory.mktemp("hasty"), *limits) as running:
        yield running


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"200"),
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\n", b"200"),
        (
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 9999\r\n\r\n",
            b"413",
        ),
    ],
    ids=["next-head", "body-of-a-get", "body-after-a-refusal"],
)
def test_a_client_that_drips_after_an_answer_is_let_go(hasty, request_, status):
    with socket.create_connection((hasty.host, hasty.port)) as line:
        line.sendall(request_)
        line.settimeout(0.1)
        answer, end = b"", time.monotonic() + 10
        with pytest.raises(ConnectionError):
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    answer += line.recv(65536)
                line.sendall(b"G")
        assert answer.startswith(b"HTTP/1.1 " + status)


def test_a_client_that_asks_again_and_again_keeps_its_connection(hasty):
    with socket.create_connection((hasty.host, hasty.port), timeout=5) as line:
        for _ in range(6):
            line.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                part = line.recv(65536)
                assert part, "closed"
                answer += part
            time.sleep(0.4)


@pytest.mark.parametrize("part", [b"\r\n\xff\xfe", b"Content-Type: text/plain; charset=nonsense\r\n\r\nabc"])
def test_a_form_with_a_text_that_is_none_is_refused(part):
    body = b'--x\r\nContent-Disposition: form-data; name="note"\r\n' + part + b"\r\n--x--\r\n"
    answer = post(an_app(), body, "multipart/form-data; boundary=x")
    assert answer.status_code == 400
    assert answer.json()["detail"].endswith("send texts as UTF-8")


needs_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@needs_full_disk
def test_a_form_that_finds_no_room_is_told_so(monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: open("/dev/full", "w+b"))  # noqa: SIM115
    body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n' + bytes(2_000_000)
    answer = post(an_app(), body + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")
    assert answer.status_code == 507
    assert "free some there, or set TMPDIR" in answer.json()["detail"]


@needs_full_disk
def test_a_clip_that_finds_no_room_is_told_so(monkeypatch):
    @contextlib.contextmanager
    def arrival(_):
        yield "clip", Path("/dev/full")

    app = an_app()
    monkeypatch.setattr(Jobs, "arrival", arrival)
    monkeypatch.setattr(Jobs, "__init__", lambda _: None)
    monkeypatch.setattr(Jobs, "pending", 0)
    app._app.state.serving.jobs = Jobs()
    answer = post(app, b"GIF89a" + bytes(100_000), "video/mp4", "watch")
    assert answer.status_code == 507
    assert answer.json()["detail"].startswith("no room in the server's temporary folder")


def test_the_page_keeps_the_model_with_which_the_server_started(tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(b"the first")
    app = an_app(model=model)

    async def ask():
        async with a_client(app) as client:
            return (await client.get("/models/model.onnx")).content

    model.write_bytes(b"another one")
    assert asyncio.run(ask()) == b"the first"
    model.unlink()
    assert asyncio.run(ask()) == b"the first"


@pytest.mark.parametrize("address", ["", "main.js", "page.json", "models/model.onnx"])
def test_what_a_browser_has_of_the_page_is_not_sent_again(hasty, address):
    whole = CLIENT.get(f"{hasty.url}/{address}")
    tag = whole.headers["etag"]
    assert (whole.status_code, whole.headers["cache-control"]) == (200, "no-cache")
    assert int(whole.headers["content-length"]) == len(whole.content) > 0
    for said in (tag, f'"another", W/{tag}'):
        again = CLIENT.get(f"{hasty.url}/{address}", headers={"if-none-match": said})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert CLIENT.get(f"{hasty.url}/{address}", headers={"if-none-match": '"another"'}).content == whole.content


def test_a_clip_is_not_read_with_a_model_that_took_the_first_ones_place(tmp_path):
    with Server(tmp_path) as server:
        a_video(tmp_path / "a.mp4", count=2)
        clip = (tmp_path / "a.mp4").read_bytes()
        shutil.copyfile(model_file("ferplus-nano"), tmp_path / "tiny.onnx")
        headers = {"content-type": "video/mp4"}
        job = CLIENT.post(f"{server.url}/watch", content=clip, headers=headers).json()["id"]
        record = finished(server, job)
    assert record["state"] == "failed"
    assert record["problem"].startswith("tiny.onnx: was replaced or removed since the server started; start the server")


def test_a_wrong_method_is_told_the_right_one_and_the_counters_have_one_charset():
    async def ask():
        async with a_client(an_app()) as client:
            return await client.put("/predict"), await client.get("/metrics")

    refused, counters = asyncio.run(ask())
    assert refused.status_code == refused.json()["status_code"] == 405
    said, _, methods = refused.json()["detail"].partition("; use ")
    assert (said, set(methods.split(", "))) == ("PUT is not allowed here", {"POST", "OPTIONS"})
    assert counters.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_what_is_no_http_is_a_line_of_json_in_the_log(hasty):
    assert hasty.raw(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    lines = [line for line in hasty.log.read_text().splitlines() if not line.startswith("mien: ")]
    assert "Invalid HTTP request received." in [json.loads(line)["event"] for line in lines]


def test_clients_that_take_nothing_of_their_answers_are_let_go(hasty):
    """A large answer, or many small ones, that nobody reads."""

    def held():
        return len(os.listdir(f"/proc/{hasty.process.pid}/fd"))

    model = b"GET /models/model.onnx HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    script = 400 * model.replace(b"models/model.onnx", b"main.js")
    time.sleep(2)  # those of the tests before are closed
    before, lines, end = held(), [], time.monotonic() + 20
    for ask in [model, model, model, script]:
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect((hasty.host, hasty.port))
        line.sendall(ask)
        lines.append(line)
    time.sleep(0.5)
    assert held() > before
    while held() > before:
        assert time.monotonic() < end, "they are held"
        time.sleep(0.1)
    for line in lines:
        line.close()


@pytest.mark.parametrize(
    ("route", "kind", "part"),
    [
        ("predict", "image/png", b"half"),
        ("predict", "multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data"),
        ("watch", "video/mp4", b"half"),
    ],
)
def test_a_client_that_hangs_up_is_no_fault_of_the_server(hasty, route, kind, part):
    count = rf'mien_requests_total{{{{route="{route}",status="{{}}"}}}} (\d+)'

    def counted(status):
        found = re.search(count.format(status), CLIENT.get(f"{hasty.url}/metrics").text)
        return int(found[1]) if found else 0

    before, faults, end = counted(499), counted(500), time.monotonic() + 10
    head = f"POST /{route} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: 900\r\n\r\n"
    with socket.create_connection((hasty.host, hasty.port)) as line:
        line.sendall(head.encode() + part)
        time.sleep(0.2)
    while counted(499) == before:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert counted(500) == faults == 0
    assert "Traceback" not in hasty.log.read_text()


def test_a_clip_that_is_still_sent_when_the_server_ends_is_told_so(tmp_path):
    head = b"POST /watch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: video/mp4\r\nContent-Length: 9999\r\n\r\nabc"
    with Server(tmp_path) as server, socket.create_connection((server.host, server.port), timeout=20) as line:
        line.sendall(head)
        time.sleep(0.3)
        start = time.monotonic()
        server.process.terminate()
        answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert server.process.wait(20) == 0
    assert time.monotonic() - start < 9.5
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"the server ends; send it again once it is up" in answer
    assert "trace" not in server.log.read_text()
    assert server.log.read_text().count('"status": 503') == 1
