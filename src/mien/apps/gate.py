"""What every request passes: who may ask, how much at once, what is counted and logged. Plain ASGI, around the application."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mien.apps.measures import Measures
from mien.apps.records import Problem
from mien.apps.settings import Settings

__all__ = ["Gate", "log", "log_to_stderr"]

log = logging.getLogger("mien.serve")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

#: Routes that read faces: they want a key and count as work; the page and /health do not.
_WORK = ("predict", "watch", "frames")
_CLOSED = (*_WORK, "metrics", "model")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]


class _AsJson(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON; what a call gave as `extra={"facts": {...}}` is in it."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr() -> None:
    """Send the log to stderr as JSON lines, with what other libraries warn of. Ours never holds pictures, file names,
    addresses of clients or answers."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(_AsJson())
    log.handlers[:] = [lines]
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger().handlers[:] = [lines]


class Gate:
    """The application behind checks: the host's name, the origin, the key, how much is in work."""

    def __init__(self, app: Any, settings: Settings, measures: Measures, routes: frozenset[str]) -> None:
        self._app, self._settings, self._measures, self._routes = app, settings, measures, routes
        self.busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if scope.get("method") == "HEAD":  # answered as GET; uvicorn leaves the body out
            scope = {**scope, "method": "GET"}
        first = scope["path"].lstrip("/").split("/")[0]
        route = first if first in self._routes else "page"
        refused = self._refusal(scope, route)
        if refused is not None:
            await self._refuse(scope, receive, send, route, refused)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._pass(scope, receive, send, route)

    def _refusal(self, scope: Scope, route: str) -> Problem | None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        hosts = self._settings.hosts
        if hosts and (urlsplit(f"//{host}").hostname if _sound(host) else None) not in hosts:
            return Problem(403, f"host: this server answers to {', '.join(hosts)} only; `mien serve --host` sets it")
        origin = headers.get(b"origin")
        if origin is not None and (not _sound(origin) or urlsplit(origin).netloc != host):
            return Problem(403, "origin: pages from elsewhere may not use this server")
        if route in _CLOSED and self._settings.keys and not self._knows(headers):
            return Problem(401, "a key is needed; send it as `Authorization: Bearer KEY`")
        if (
            route in _WORK
            and scope["type"] == "http"
            and scope["method"] == "POST"
            and self.busy >= self._settings.at_once
        ):
            return Problem(429, f"{self.busy} requests are in work, the most there may be; try again in a second")
        return None

    def _knows(self, headers: dict[bytes, str]) -> bool:
        kind, _, given = headers.get(b"authorization", "").partition(" ")
        told = given.strip().encode() if kind.lower() == "bearer" else headers.get(b"x-api-key", "").encode()
        return sum(hmac.compare_digest(told, key.encode()) for key in self._settings.keys) > 0

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, route: str, problem: Problem) -> None:
        self._measures.requests.labels(route, str(problem.status_code)).inc()
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:120]})
            return
        headers = [*_HEADERS]
        if problem.status_code == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if problem.status_code == 429:
            headers.append((b"retry-after", b"1"))
        await _tell(send, problem, headers)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, route: str) -> None:
        start, status, work = time.perf_counter(), 0, route in _WORK and scope["method"] == "POST"
        gone = False  # before there was an answer

        async def take() -> Any:
            nonlocal gone
            message = await receive()
            gone = gone or (message["type"] == "http.disconnect" and not status)
            return message

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        self.busy += work
        self._measures.busy.set(self.busy)
        try:
            await self._app(scope, take, answer)
        except asyncio.CancelledError:  # the server ends, and this took longer than it waits
            if not status:
                await _tell(answer, Problem(503, "the server ends; send it again once it is up"))
        finally:
            self.busy -= work
            self._measures.busy.set(self.busy)
            took = time.perf_counter() - start
            told = 499 if gone else status or 499  # a client that hung up; what it would have been told is no answer
            self._measures.requests.labels(route, str(told)).inc()
            self._measures.seconds.labels(route).observe(took)
            facts = {"method": scope["method"], "route": route, "status": told, "ms": round(1000 * took, 1)}
            log.info("request", extra={"facts": facts})


async def _tell(send: Send, problem: Problem, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    headers = [(b"content-type", b"application/json"), *headers]
    await send({"type": "http.response.start", "status": problem.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(problem)})


def _sound(address: str) -> bool:
    """Whether an address can be taken apart."""
    try:
        urlsplit(address if "//" in address else f"//{address}").port  # noqa: B018 - it raises for nonsense
    except ValueError:
        return False
    return True
