"""mien serve under load: throughput, waiting times, batches and memory against the number of clients.

    python benchmarks/serving.py [--image FILE] [--seconds 4] [--small 10000]

The server is a process of its own on 127.0.0.1, its clients threads of this one, so both share the machine's cores. Each client
sends the same picture again as soon as it has its answer, over one connection. Then comes a run of many small requests, with
the server's memory before and after. Everything is bounded and ends by itself.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

EXAMPLE = Path(__file__).parent.parent / "examples" / "eileen_collins.jpg"
CLIENTS = (1, 2, 4, 8, 16)


class Server:
    """`mien serve` on a free port. A context manager."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "mien", "serve", "--port", "0", *options]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the server
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)

    def __enter__(self) -> Server:
        assert self._process.stdout is not None
        found = re.search(r":(\d+)/", self._process.stdout.readline())
        if found is None:
            self._log.seek(0)
            sys.exit(f"the server did not start: {self._log.read().decode()}")
        self.port = int(found[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    def memory(self) -> float:
        """Resident megabytes."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def counted(self, name: str) -> float:
        """A number from /metrics."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        line.request("GET", "/metrics")
        text = line.getresponse().read().decode()
        line.close()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def client(
    port: int, data: bytes, kind: str, until: float, most: int, stop: threading.Event
) -> tuple[list[float], int]:
    """Ask until a time or a number of answers; the seconds of each, and how many were not 200."""
    line, took, refused = http.client.HTTPConnection("127.0.0.1", port, timeout=60), [], 0
    while time.perf_counter() < until and len(took) < most and not stop.is_set():
        start = time.perf_counter()
        line.request("POST", "/predict", data, {"Content-Type": kind})
        answer = line.getresponse()
        answer.read()
        took.append(time.perf_counter() - start)
        refused += answer.status != 200
    line.close()
    return took, refused


def load(
    server: Server, data: bytes, kind: str, clients: int, seconds: float, most: int = 1_000_000
) -> tuple[np.ndarray, int, float]:
    """Seconds of every answer, how many were refused, and how long all took."""
    stop, start = threading.Event(), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        parts = [pool.submit(client, server.port, data, kind, start + seconds, most, stop) for _ in range(clients)]
        try:
            found = [part.result() for part in parts]
        except KeyboardInterrupt:
            stop.set()
            raise
    return (
        np.concatenate([took for took, _ in found]),
        sum(refused for _, refused in found),
        time.perf_counter() - start,
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=EXAMPLE)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each row")
    parser.add_argument("--small", type=int, default=10_000, help="small requests at the end, 600 s at most")
    given = parser.parse_args()
    data = given.image.read_bytes()
    with Server() as server:
        load(server, data, "image/jpeg", 2, 2.0)
        print(
            f"{given.image.name}, {len(data) / 1000:.0f} kB; {os.cpu_count()} cores, clients on the same; load {os.getloadavg()[0]:.1f}"
        )
        print("clients  answers/s  p50 ms  p95 ms  p99 ms  faces/call  not 200  server MB")
        for clients in CLIENTS:
            before = server.counted("mien_batch_faces_sum"), server.counted("mien_batch_faces_count")
            took, refused, wall = load(server, data, "image/jpeg", clients, given.seconds)
            faces = server.counted("mien_batch_faces_sum") - before[0]
            calls = max(server.counted("mien_batch_faces_count") - before[1], 1)
            p50, p95, p99 = 1000 * np.percentile(took, [50, 95, 99])
            print(
                f"{clients:7d} {len(took) / wall:10.1f} {p50:7.1f} {p95:7.1f} {p99:7.1f} {faces / calls:11.2f} {refused:8d} {server.memory():10.0f}"
            )
        small = cv2.imencode(".png", np.full((48, 48, 3), 128, np.uint8))[1].tobytes()
        before_mb = server.memory()
        took, refused, wall = load(server, small, "image/png", 8, 600.0, -(-given.small // 8))
        print(
            f"{len(took)} requests of {len(small)} bytes by 8 clients: {len(took) / wall:.0f} a second, {refused} not 200, "
            f"server {before_mb:.0f} -> {server.memory():.0f} MB"
        )


if __name__ == "__main__":
    main()
