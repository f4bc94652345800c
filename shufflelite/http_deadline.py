"""Opens URLs until a deadline, however slowly the other side sends what."""

import contextlib
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any


@contextlib.contextmanager
def opener(limit_s: float) -> Iterator[urllib.request.OpenerDirector]:
    """Yields an opener whose connections end after `limit_s`; raises TimeoutError then.

    A socket's own timeout begins again with each byte that comes.
    """
    sockets: list[socket.socket] = []
    expired = threading.Event()
    message = f"not done after {limit_s:g} s"

    def expire() -> None:
        expired.set()
        for one in sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)  # TLS would wait for an answer

    def connect(connection: Any, start: Any) -> None:
        start(connection)
        sockets.append(connection.sock)
        if expired.is_set():
            raise TimeoutError(message)

    class Plain(HTTPConnection):
        def connect(self) -> None:
            connect(self, HTTPConnection.connect)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            connect(self, HTTPSConnection.connect)

    class OpenPlain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> HTTPResponse:
            return self.do_open(Plain, request)

    class OpenSecure(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> HTTPResponse:
            return self.do_open(Secure, request)

    timer = threading.Timer(limit_s, expire)
    timer.daemon = True
    timer.start()
    try:
        yield urllib.request.build_opener(OpenPlain, OpenSecure)
    except Exception as error:
        if expired.is_set():
            raise TimeoutError(message) from error
        raise
    finally:
        timer.cancel()
        for one in sockets:  # urllib leaves some open when it refuses what came
            if (descriptor := one.detach()) >= 0:
                os.close(descriptor)
    if expired.is_set():  # without Content-Length a cut connection looks like an end
        raise TimeoutError(message)
