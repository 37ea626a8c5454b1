"""mien serve as a client meets it: the real command, in a process of its own."""

import asyncio
import concurrent.futures
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import httpx
import msgspec
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from apps.browsing import EXAMPLE
from builders import a_face, a_video, drawn_face
from mien.apps.batching import Batcher
from mien.apps.measures import Measures
from mien.errors import ImageError, ModelError
from mien.faces import ImageRecord
from mien.runtime.classify import Classifier
from mien.runtime.fakes import FakeDetector, FakeSession
from mien.runtime.read import Reader
from mien.spec import ModelSpec
from test_runtime import a_model

CLIENT = httpx.Client(timeout=60, trust_env=False)
KEY = "a-key-of-enough-letters"


def png(image):
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


class Server:
    """`mien serve` with a tiny model that takes each picture as a face. A context manager."""

    def __init__(self, folder, *options, **environment):
        a_model(folder / "tiny.onnx")
        command = [
            sys.executable,
            "-m",
            "mien",
            "serve",
            "--port",
            "0",
            "--model",
            "tiny.onnx",
            "--detector",
            "whole",
            *options,
        ]
        self.log = folder / "log"
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=file, text=True, env={**os.environ, **environment}
            )

    def __enter__(self):
        line = self.process.stdout.readline()
        found = re.search(r"http://([\d.]+):(\d+)/", line)
        assert found, line + self.log.read_text()
        self.host, self.port = found[1], int(found[2])
        self.url = f"http://{self.host}:{self.port}"
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def raw(self, data, pause=0.0):
        """What comes back on a socket for some bytes, until the server closes it."""
        with socket.create_connection((self.host, self.port), timeout=20) as line:
            line.sendall(data)
            time.sleep(pause)
            answer = b""
            while part := line.recv(65536):
                answer += part
            return answer

    def memory(self):
        """Resident megabytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    limits = ["--seconds", "3", "--max-pixels", "1000000", "--max-bytes", "300000", "--max-video-bytes", "400000"]
    with Server(tmp_path_factory.mktemp("server"), *limits) as running:
        yield running


def post(server, data, kind="image/png", route="predict", **more):
    return CLIENT.post(f"{server.url}/{route}", content=data, headers={"content-type": kind, **more})


def test_one_picture_and_several(server):
    picture = png(drawn_face())
    [record] = msgspec.json.decode(post(server, picture).content, type=list[ImageRecord])
    assert record.image is None
    assert list(record.faces[0].expression.probabilities) == ["x", "y"]
    files = [("images", (f"{i}.png", picture, "image/png")) for i in range(3)]
    answer = CLIENT.post(f"{server.url}/predict", files=files)
    assert [item["image"] for item in answer.json()] == ["0.png", "1.png", "2.png"]
    assert all(item.faces == record.faces for item in msgspec.json.decode(answer.content, type=list[ImageRecord]))


@pytest.mark.parametrize(
    ("data", "kind", "status", "words"),
    [
        (b"no picture", "image/png", 400, "not an image of a known form"),
        (png(drawn_face())[:-300], "image/png", 400, "cut off or damaged"),
        (b"", "image/png", 400, "is empty"),
        (png(drawn_face()), "text/plain", 415, "text/plain: send image/"),
        (png(drawn_face()), "", 415, "no type"),
        (bytes(300_001), "image/png", 413, "more bytes than this server takes; send less"),
        (b"--x", "multipart/form-data; boundary=x", 400, ""),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "no file"),
    ],
)
def test_what_is_no_picture_is_refused(server, data, kind, status, words):
    answer = post(server, data, kind)
    assert answer.status_code == status
    assert answer.json()["status_code"] == status
    assert words in answer.json()["detail"]


def test_a_bomb_is_refused_by_its_header(server):
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = (20_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    body = zlib.compress(bytes(50_000_000), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    before = server.memory()
    answer = post(server, bomb)
    assert answer.status_code == 400
    assert "pixels" in answer.json()["detail"]
    assert server.memory() - before < 40


def test_too_many_pictures(server):
    files = [("images", (f"{i}.png", png(drawn_face(16)), "image/png")) for i in range(17)]
    answer = CLIENT.post(f"{server.url}/predict", files=files)
    assert answer.status_code == 413
    assert "17 pictures; at most 16" in answer.json()["detail"]
    answer = CLIENT.post(f"{server.url}/predict", files=4 * files)
    assert answer.status_code == answer.json()["status_code"] == 413
    assert answer.json()["detail"] == "the form has too many parts; send at most 16 pictures at once"


def test_stalled_sockets_are_let_go(server):
    start = time.monotonic()
    part = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc"
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        silence, refusal = pool.map(server.raw, [head, part])
    assert silence == b""
    assert refusal.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - start < 30
    assert CLIENT.get(f"{server.url}/health").json()["requests"] == 0


def test_a_clip_that_drips_in_frees_its_place(tmp_path):
    """Its parts come often enough, the whole never would."""
    head = b"POST /watch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: video/mp4\r\nContent-Length: 100000\r\n\r\n"
    limits = ("--seconds", "20", "--upload-seconds", "2", "--jobs", "1")
    with Server(tmp_path, *limits) as server, socket.create_connection((server.host, server.port)) as line:
        line.sendall(head)
        line.settimeout(0.2)
        answer, end = b"", time.monotonic() + 15
        while not answer.endswith(b"}") and time.monotonic() < end:
            line.sendall(b"" if answer else b"\0")
            try:
                answer += line.recv(65536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"the clip did not arrive within 2 s" in answer
        assert CLIENT.get(f"{server.url}/health").json()["jobs"] == 0


def test_pages_and_names_from_elsewhere_are_refused(server):
    picture = png(drawn_face())
    assert post(server, picture, origin="http://elsewhere.example").status_code == 403
    assert post(server, picture, origin=server.url).status_code == 200
    assert CLIENT.get(f"{server.url}/health", headers={"host": "elsewhere.example"}).status_code == 403
    with pytest.raises(Exception, match="403"):
        connect(f"ws://{server.host}:{server.port}/frames", origin="http://elsewhere.example", proxy=None)


def test_the_facts_of_the_server(server):
    assert post(server, EXAMPLE.read_bytes(), "image/jpeg").status_code == 200
    assert CLIENT.get(f"{server.url}/health").json()["status"] == "ok"
    spec = msgspec.json.decode(CLIENT.get(f"{server.url}/model").content, type=ModelSpec)
    assert spec.name == "tiny"
    text = CLIENT.get(f"{server.url}/metrics").text
    assert re.search(r'mien_requests_total\{route="predict",status="200"\} [1-9]', text)
    assert "mien_batch_faces_count" in text
    told = server.log.read_text().splitlines()
    lines = [json.loads(line) for line in told if not line.startswith("mien: ")]  # such as: the engine is not there
    assert {"time", "level", "event"} <= set.intersection(*(set(line) for line in lines))
    assert {line["route"] for line in lines if line["event"] == "request"} >= {"predict", "health"}


def test_frames_by_socket(server):
    with connect(f"ws://{server.host}:{server.port}/frames", proxy=None) as line:
        for index in range(3):
            line.send(png(drawn_face(48, seed=index)))
            record = msgspec.json.decode(line.recv(10), type=ImageRecord)
            assert (record.index or 0, len(record.faces), record.faces[0].track) == (index, 1, 1)
        line.send(b"no picture")
        assert json.loads(line.recv(10))["status_code"] == 400
        line.send("words")
        assert json.loads(line.recv(10))["status_code"] == 415
        line.send(png(drawn_face(48)))
        assert msgspec.json.decode(line.recv(10), type=ImageRecord).index == 5


def finished(server, job):
    end = time.monotonic() + 40
    while (record := CLIENT.get(f"{server.url}/watch/{job}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < end, record
        time.sleep(0.1)
    return record


def test_a_busy_socket_outlives_the_time_a_request_has_and_a_silent_one_is_told(tmp_path):
    with Server(tmp_path, "--seconds", "1") as server, connect(f"ws://{server.host}:{server.port}/frames") as line:
        for number in range(6):
            line.send(png(drawn_face()))
            assert json.loads(line.recv())["index"] == number
            time.sleep(0.3)
        with pytest.raises(ConnectionClosed, match="no frame for 1 s"):
            line.recv(timeout=10)


def test_head_is_answered_as_get_without_a_body(server):
    for address, status in (("/", 200), ("/health", 200), ("/style.css", 200), ("/predict", 405), ("/none", 404)):
        answer = CLIENT.head(server.url + address)
        assert (answer.status_code, answer.content) == (status, b"")


def test_a_clip_from_upload_to_table(server, tmp_path):
    a_video(tmp_path / "a.mp4", count=10)
    answer = post(server, (tmp_path / "a.mp4").read_bytes(), "video/mp4", "watch?every=2")
    assert answer.status_code == 202
    job = answer.json()["id"]
    record = finished(server, job)
    assert (record["state"], record["frames"], record["total"], record["faces"]) == ("done", 5, 5, 5)
    table = CLIENT.get(f"{server.url}/watch/{job}/table")
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["index"] for row in rows] == ["0", "2", "4", "6", "8"]
    lines = CLIENT.get(f"{server.url}/watch/{job}/table", params={"form": "jsonl"}).text.splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 2, 4, 6, 8]
    assert CLIENT.delete(f"{server.url}/watch/{job}").json()["state"] == "done"
    assert CLIENT.get(f"{server.url}/watch/{job}").status_code == 404


def test_clips_that_are_none(server, tmp_path):
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"
    assert post(server, playlist, "video/mp4", "watch").status_code == 400
    assert post(server, b"", "video/mp4", "watch").status_code == 400
    assert post(server, b"", "text/plain", "watch").status_code == 415
    assert post(server, bytes(400_001), "video/mp4", "watch").status_code == 413
    assert post(server, b"", "video/mp4", "watch?every=0").status_code == 400
    a_video(tmp_path / "a.mp4", count=10)
    broken = (tmp_path / "a.mp4").read_bytes()[:700]
    job = post(server, broken, "video/mp4", "watch").json()["id"]
    record = finished(server, job)
    assert record["state"] == "failed"
    assert record["problem"].startswith("clip")
    assert CLIENT.get(f"{server.url}/watch/{job}/table").status_code == 409


def test_jobs_are_bounded_and_can_be_cancelled(server, tmp_path):
    a_video(tmp_path / "a.mp4", count=2)
    data = (tmp_path / "a.mp4").read_bytes()
    answers = [post(server, data, "video/mp4", "watch") for _ in range(6)]
    assert [answer.status_code for answer in answers].count(429) >= 1
    jobs = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    for job in reversed(jobs):
        answer = CLIENT.delete(f"{server.url}/watch/{job}")
        assert (answer.status_code, answer.json().get("state")) in ((200, "cancelled"), (200, "done")), answer.text
    end = time.monotonic() + 20
    while CLIENT.get(f"{server.url}/health").json()["jobs"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_many_small_requests_leave_the_memory_flat(server):
    picture = png(drawn_face(48))

    def ask(count):
        with httpx.Client(timeout=60, trust_env=False) as client:
            headers = {"content-type": "image/png"}
            return [
                client.post(f"{server.url}/predict", content=picture, headers=headers).status_code for _ in range(count)
            ]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, [10] * 8))
        before = server.memory()
        codes = [code for part in pool.map(ask, [30] * 8) for code in part]
    assert set(codes) == {200}
    assert server.memory() - before < 15


@schemathesis.serializer(
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/gif",
    "image/bmp",
    "image/tiff",
    *("video/mp4", "video/webm", "video/x-matroska", "video/quicktime", "video/x-msvideo", "video/ogg"),
)
def as_bytes(_, value):
    return value if isinstance(value, bytes) else str(value).encode()


def test_the_api_is_as_its_description_says(server):
    """Every operation of the OpenAPI document, with values drawn from it: each answer is one that is described."""
    document = schemathesis.openapi.from_url(f"{server.url}/schema/openapi.json")
    names = []
    for result in document.get_all_operations():
        operation = result.ok()
        names.append(operation.label)

        @hypothesis_settings(
            max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def answers_as_described(case):
            case.call_and_validate(excluded_checks=[positive_data_acceptance])  # bytes are seldom a picture

        answers_as_described()
    assert {"POST /predict", "POST /watch", "GET /watch/{job_id}", "GET /model"} <= set(names)
    assert CLIENT.get(f"{server.url}/health").status_code == 200
    paths = CLIENT.get(f"{server.url}/schema/openapi.json").json()["paths"]
    answers = [item for path in paths.values() for way in path.values() for item in way["responses"].items()]
    refused = [kind["schema"] for code, said in answers if code > "3" for kind in said["content"].values()]
    assert all(schema == {"$ref": "#/components/schemas/Problem"} for schema in refused)
    table = paths["/watch/{job_id}/table"]["get"]["responses"]["200"]["content"]
    assert set(table) == {"text/csv", "application/x-ndjson"}


def test_keys(tmp_path):
    with Server(tmp_path, MIEN_API_KEYS=f"another-key-of-letters, {KEY}") as server:
        picture = png(drawn_face())
        refused = post(server, picture)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert post(server, picture, authorization="Bearer nothing").status_code == 401
        assert post(server, picture, authorization=f"Bearer {KEY}").status_code == 200
        assert post(server, picture, **{"x-api-key": KEY}).status_code == 200
        assert CLIENT.get(f"{server.url}/metrics").status_code == 401
        assert CLIENT.get(f"{server.url}/health").status_code == 200
        assert CLIENT.get(f"{server.url}/").status_code == 200
        told = CLIENT.get(f"{server.url}/schema/openapi.json").json()
        ways = {(way["type"], way.get("name")) for way in told["components"]["securitySchemes"].values()}
        assert ways == {("http", None), ("apiKey", "X-API-Key")}
        assert [list(way) for way in told["security"]] == [["key"], ["header"]]
        assert [path for path, item in told["paths"].items() for way in item.values() if "security" in way] == [
            "/health"
        ]
        assert KEY not in server.log.read_text()
    assert server.process.returncode == 0
    assert json.loads(server.log.read_text().splitlines()[-1])["event"] == "stop"


def test_a_begun_request_is_finished_when_the_server_is_told_to_end(tmp_path):
    picture = png(drawn_face())
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: {len(picture)}\r\n\r\n"
    with Server(tmp_path) as server, socket.create_connection((server.host, server.port), timeout=30) as line:
        line.sendall(head.encode() + picture[:100])
        end = time.monotonic() + 20
        while CLIENT.get(f"{server.url}/health").json()["requests"] == 0:
            assert time.monotonic() < end
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        line.sendall(picture[100:])
        assert line.recv(65536).startswith(b"HTTP/1.1 200")
        assert server.process.wait(20) == 0


def test_a_server_that_ends_in_the_middle_of_a_clip_says_only_so(tmp_path):
    a_video(tmp_path / "a.mp4", count=200)
    clip = {"content": (tmp_path / "a.mp4").read_bytes(), "headers": {"content-type": "video/mp4"}}
    with Server(tmp_path) as server:
        assert CLIENT.post(f"{server.url}/watch", **clip).status_code == 202
        time.sleep(0.2)
    assert server.process.returncode == 0
    assert "Traceback" not in server.log.read_text()


def test_what_the_command_refuses(mien, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, said = mien("serve", "--port", port)
        assert code == 2
        assert f"port {port} of 127.0.0.1: is taken" in said
    monkeypatch.setenv("MIEN_API_KEYS", "short")
    assert "at least 16 characters" in mien("serve")[2]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "pip install 'mien[serve]'" in mien("serve")[2]


@pytest.mark.parametrize("size", ["0", "-5", "nan"])
@pytest.mark.parametrize("words", [["serve"], ["page", "site"]])
def test_faces_of_no_size_are_not_looked_for(words, size, mien, tmp_path):
    code, _, said = mien(*words, "--min-size", size)
    assert (code, "min-size" in said.replace("_", "-")) == (2, True)
    assert not (tmp_path / "site").exists()


def a_batcher(answer=None, faces=1):
    reader = Reader(FakeDetector([a_face(expression=None)] * faces), Classifier(FakeSession(answer=answer)))
    return Batcher(reader, Measures(), 4, 1_000_000, most=8), reader.classifier.session


def test_requests_share_batches_and_get_their_own_answers():
    def slow(chips):
        time.sleep(0.05)
        level = chips.mean(axis=(1, 2, 3)) / 255
        rest = (1 - level) / 7
        return np.stack([level, *[rest] * 7], axis=1).astype(np.float32), np.zeros((len(chips), 2), np.float32)

    batcher, session = a_batcher(slow, faces=2)
    levels = [10 * i for i in range(12)]
    pictures = [png(np.full((64, 64, 3), level, np.uint8)) for level in levels]

    async def all_at_once():
        return await asyncio.gather(*map(batcher, pictures))

    found = asyncio.run(all_at_once())
    batcher.close()
    assert [len(faces) for faces in found] == [2] * 12
    shares = [float(faces[0].expression.probabilities[0]) for faces in found]
    assert np.allclose(shares, np.array(levels) / 255, atol=1e-3)
    sizes = [len(chips) for chips in session.seen]
    assert sum(sizes) == 24
    assert len(sizes) < 12
    assert max(sizes) <= 8


def test_an_error_in_a_batch_reaches_those_in_it_alone():
    def broken(_):
        raise ModelError("the model is broken")

    batcher, session = a_batcher(broken)

    async def talk():
        results = await asyncio.gather(batcher(png(drawn_face(64))), batcher(b"nothing"), return_exceptions=True)
        session._answer = None
        return [*results, await batcher(png(drawn_face(64)))]

    first, second, third = asyncio.run(talk())
    batcher.close()
    assert isinstance(first, ModelError)
    assert isinstance(second, ImageError)
    assert third[0].expression.label == "happiness"
