"""Running the application: the socket, patience with slow clients, an orderly end."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import signal
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mien.apps.gate import log
from mien.apps.settings import Settings
from mien.errors import OutputError

__all__ = ["is_local", "names_of", "open_socket", "serve"]

#: Seconds that begun requests have when the server is told to end. Containers are killed after ten; closing takes some too.
_GRACE = 7
_CONNECTIONS = 512


def is_local(host: str) -> bool:
    """Whether only this machine can reach a server bound to this host.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_of(host: str) -> tuple[str, ...]:
    """The names by which a local server may be called (a page from elsewhere could point its own name here); () for any."""
    return tuple(dict.fromkeys((host, "localhost", "127.0.0.1", "::1"))) if is_local(host) else ()


def open_socket(host: str, port: int) -> socket.socket:
    """The listening socket; port 0 takes a free one. Raises OutputError: the port is taken, the host is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By its protocol asyncio knows it for TCP and sends small parts at once; without, each answer waits 40 ms for an ACK.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_CONNECTIONS)  # who calls from here on waits until the application is up
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise OutputError(
                f"port {port} of {host}: is taken; stop what uses it, or choose another with --port"
            ) from error
        raise OutputError(
            f"{host} port {port}: cannot be opened ({error.strerror or error}); choose with --host and --port"
        ) from error
    return listening


class _Patient(H11Protocol):
    """HTTP/1.1 that does not wait for ever: for a request to begin, be it the first of a connection or the next, nor for
    a client to take more of an answer.

    What is left of a body whose request was answered already is read away for as long: closing at once could take the
    answer from a client that still sends.
    """

    patience = 20.0
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client is there; it must send a whole head in time."""
        super().connection_made(transport)
        self._late = self.loop.call_later(self.patience, self._give_up)

    def on_response_complete(self) -> None:
        """A request is answered; the next one must begin in time."""
        self._late.cancel()
        self._late = self.loop.call_later(self.patience, self._give_up)
        super().on_response_complete()

    def _give_up(self) -> None:
        upgraded = self.transport.get_protocol() is not self  # to a WebSocket, which has its own patience
        waiting = self.cycle is None or self.cycle.response_complete
        if not waiting or upgraded:
            return
        if self.transport.get_write_buffer_size():  # closing would wait until the client has taken it
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        """The client takes the answer more slowly than it is made; it must take what waits in time."""
        super().pause_writing()
        self._stuck = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken it."""
        self._release()
        super().resume_writing()

    def _release(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._late.cancel()
        self._release()
        super().connection_lost(exc)


def serve(app: Any, listening: socket.socket, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; begun requests are finished, for seven seconds at most."""
    protocol = type("Patient", (_Patient,), {"patience": settings.seconds})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="websockets-sansio",
        ws_max_size=settings.max_bytes,
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=max(1, round(min(5.0, settings.seconds))),
        timeout_graceful_shutdown=_GRACE,
    )
    log.info(
        "start", extra={"facts": {"at": "{}:{}".format(*listening.getsockname()[:2]), "keys": bool(settings.keys)}}
    )
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn hears it first, and raises it again once all is closed
    try:
        asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))
    except KeyboardInterrupt:  # the same for SIGINT
        pass
    finally:
        listening.close()
        log.info("stop")
