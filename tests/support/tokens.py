"""An authorization server for Kafka's tests: its tokens end soon, and a stock broker takes them.

They are unsigned JWTs (RFC 7519 6), which Kafka's default validator takes; real installations configure another.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from runtime.kafka.security import Sasl, SaslMechanism

LIFE_S = 4.0
"""A new connection gets a new token after four fifths of it."""


def token(subject: str, life_s: float) -> str:
    """Return an unsigned JWT that is valid for `life_s` from now."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + life_s})
    return ".".join([*(_encoded(part) for part in parts), ""])


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


class TokenServer(ThreadingHTTPServer):
    """Notes how it was asked; answers `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str | None, dict[str, list[str]]]] = []
        """The Authorization header and the form of each request."""
        self.status = 200

    @property
    def sasl(self) -> Sasl:
        """Return what a client is given to get its tokens here."""
        url = f"http://127.0.0.1:{self.server_address[1]}/token"
        return Sasl(SaslMechanism.OAUTHBEARER, token_url=url, client_id="tollgate", client_secret="hush", scope="kafka")


class _Handler(BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.server.asked.append((self.headers["authorization"], form))
        answer = {"access_token": token("tollgate", LIFE_S), "token_type": "Bearer", "expires_in": LIFE_S}
        body = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[TokenServer]:
    """Run one for the length of a `with` block."""
    with TokenServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
