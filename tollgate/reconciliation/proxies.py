"""Asks the proxies that the operator names what they have not published yet: `GET /spool` on their ops ports.

No redirect is followed, and no proxy of the environment is used.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import httpx
from pydantic import TypeAdapter, ValidationError

from schemas.spool import SpoolFigures
from tollgate.reconciliation.compare import ReconcileError

PATH = "/spool"

_TIMEOUT_S = 10.0
_WITHIN_S = 30
_MOST_BYTES = 64 * 1024 * 1024
_ROWS: TypeAdapter[list[SpoolFigures]] = TypeAdapter(list[SpoolFigures])


class Proxies:
    """The proxies at these addresses of ops ports, as http://host:port. Raise ReconcileError where one is none."""

    def __init__(
        self,
        addresses: Sequence[str],
        transport: httpx.BaseTransport | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._addresses = [_checked(address) for address in addresses]
        self._transport = transport
        self._clock = clock

    def ask(self) -> list[SpoolFigures]:
        """Return every proxy's rows. Raise ReconcileError where one does not answer as it should.

        Of an instance that two proxies report, the report that has come further counts.
        """
        with httpx.Client(timeout=_TIMEOUT_S, trust_env=False, transport=self._transport) as client:
            reports = [self._asked(client, address) for address in self._addresses]
        newest: dict[str, list[SpoolFigures]] = {}
        for report in reports:
            for instance, rows in _by_instance(report).items():
                if instance not in newest or _standing(newest[instance]) < _standing(rows):
                    newest[instance] = rows
        return [row for rows in newest.values() for row in rows]

    def _asked(self, client: httpx.Client, address: str) -> list[SpoolFigures]:
        until = self._clock() + _WITHIN_S
        body = bytearray()
        with _told(address), client.stream("GET", address + PATH) as response:
            if response.status_code != 200:
                raise ReconcileError(f"the proxy at {address} answered {response.status_code} to GET {PATH}")
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise ReconcileError(f"the proxy at {address} answered more than {_MOST_BYTES} bytes to GET {PATH}")
                if self._clock() > until:
                    raise ReconcileError(f"the proxy at {address} does not answer: it took longer than {_WITHIN_S} s")
            return _ROWS.validate_json(bytes(body))


def _checked(address: str) -> str:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.path not in {"", "/"}:
        raise ReconcileError(f"--proxy: {address!r} is no address of an ops port; write it as http://127.0.0.1:8081")
    return address.rstrip("/")


@contextmanager
def _told(address: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise ReconcileError(f"the proxy at {address} does not answer: {error or type(error).__name__}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise ReconcileError(f"the proxy at {address} sent no spool report: {where}: {first['msg']}") from None


def _by_instance(rows: Iterable[SpoolFigures]) -> dict[str, list[SpoolFigures]]:
    found: dict[str, list[SpoolFigures]] = {}
    for row in rows:
        found.setdefault(row.instance, []).append(row)
    return found


def _standing(rows: Sequence[SpoolFigures]) -> tuple[int, int]:
    return max((row.acknowledged_through, row.last_sequence) for row in rows)
