"""Every answer that the proxy itself gives: OpenAI's error shape, its codes and headers (contract 3)."""

import math
import mmap
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

import msgspec

from domain.days import reset_at
from proxy.core.calls import Failure, Key
from proxy.limits import days, windows
from schemas.base import rfc3339
from schemas.limits import LimitType, RateLimitUnit

Headers = list[tuple[bytes, bytes]]
"""Lower-case names, as ASGI wants them."""

_RATE_LINES = {
    type_: b"".join(
        b"x-ratelimit-%b-%b: %b\r\n" % (what, b"requests" if type_ is LimitType.REQUEST else b"tokens", form)
        for what, form in ((b"limit", b"%d"), (b"remaining", b"%d"), (b"reset", b"%b"))
    )
    for type_ in LimitType
}
_PARAM_SHOWN = 64
"""Characters of a field's name that a log may show: a client chooses it."""
_JSON: Headers = [(b"content-type", b"application/json")]


class Reply(msgspec.Struct):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes
    is_error: bool = False
    """Whether it is an error of the gateway's own, in OpenAI's shape."""
    lines: bytes = b""
    """Further headers as they are sent, each with its end: what would be taken apart only to be put together again."""
    large: mmap.mmap | None = None
    """The body, where it lies in a file: `body` is empty then."""
    reason: str = "upstream_status"
    """Of an error its code, or else its type; as it stands, that the upstream answered so."""
    detail: str | None = None
    """What a log may say of it beyond the reason: never anything that a body holds but a field's name."""
    slug: str | None = None
    """What it refuses, where the slug is known."""
    key: Key | None = None
    """Whom it refuses, where that is known."""

    def __repr__(self) -> str:
        """Name it without whom it refuses and what it says."""
        return f"Reply({self.status}, {self.reason!r})"


def of_upstream(status: int, headers: Headers, body: bytes | mmap.mmap) -> Reply:
    """Return an upstream's answer as it came."""
    return Reply(status, headers, body) if isinstance(body, bytes) else Reply(status, headers, b"", large=body)


def error(status: int, message: str, *, kind: str, code: str | None = None, param: str | None = None) -> Reply:
    """Return an error answer in OpenAI's shape; `kind` is its `type`."""
    body = error_body(message, kind=kind, code=code, param=param)
    detail = message if param is None or param == "model" else f"field {param[:_PARAM_SHOWN]}"
    return Reply(status, list(_JSON), body, is_error=True, reason=code or kind, detail=detail)


def error_body(message: str, *, kind: str, code: str | None = None, param: str | None = None) -> bytes:
    """Return the JSON of `error`."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def json_reply(value: object) -> Reply:
    """Return a 200 with a JSON body."""
    return Reply(200, list(_JSON), msgspec.json.encode(value))


def names_upstream_object(member: str) -> Reply:
    """Return the answer to a body that names an object at an upstream whose endpoint does not allow it."""
    return bad_request(f"Field {member} names an object at the upstream, which this model's endpoint refuses.", member)


def bad_request(message: str, param: str | None = None) -> Reply:
    """400: the body or query is wrong; the message says which field and what is allowed."""
    return error(400, message, kind="invalid_request_error", param=param)


def unauthorized(message: str) -> Reply:
    """401: missing, malformed or unknown key."""
    return error(401, message, kind="invalid_request_error", code="invalid_api_key")


def unknown_key() -> Reply:
    """401: no live key, or none that may be used under this host name."""
    return unauthorized("This key is not known, or it was revoked.")


def misdirected() -> Reply:
    """421: nobody is served under this host name (RFC 9110 15.5.20)."""
    return error(421, "Nothing is served under this host name.", kind="invalid_request_error", code="unknown_host")


def key_expired(key: Key) -> Reply:
    """401: the key's time is over."""
    return _of_key(key, 401, "This key has expired.", "key_expired")


def key_disabled(key: Key) -> Reply:
    """401: the lab has disabled the key, perhaps for a time."""
    return _of_key(key, 401, "This key is disabled.", "key_disabled")


def suspended(key: Key) -> Reply:
    """403: the lab's workspace is suspended."""
    return _of_key(key, 403, "This workspace is suspended.", "workspace_suspended")


def _of_key(key: Key, status: int, message: str, code: str) -> Reply:
    reply = error(status, message, kind="invalid_request_error", code=code)
    reply.key = key
    return reply


def model_not_found(slug: str) -> Reply:
    """404, the same where the slug does not exist and where the key may not call it."""
    message = f"The model {slug[:255]!r} does not exist or this key may not call it."
    reply = error(404, message, kind="invalid_request_error", code="model_not_found", param="model")
    reply.slug = slug[:255]
    return reply


def unserved(slug: str) -> Reply:
    """502: the credential cannot be used, which no retry mends."""
    message = f"The gateway has no credential that it could use for the model {slug!r}."
    reply = error(502, message, kind="api_error", code="upstream_credential", param="model")
    reply.slug = slug
    reply.headers.append((b"x-should-retry", b"false"))
    return reply


def body_too_late(bound_s: float) -> Reply:
    """408: the body did not arrive in time."""
    return error(408, f"The body did not arrive within {bound_s:g} s.", kind="invalid_request_error")


def body_too_large(bound_bytes: int) -> Reply:
    """413."""
    return error(413, f"The body is larger than {bound_bytes} bytes.", kind="invalid_request_error")


def rate_limited(slug: str, refusal: windows.Refusal, own_group: str) -> Reply:
    """429 for a rate limit; the wait is exact to one sub-bucket, and rounded up. `own_group`: the key's."""
    limit = refusal.limit
    unit = f"per {limit.unit.value}" if limit.unit is not RateLimitUnit.CONCURRENT else limit.unit.value
    named = _named(limit, slug, unit, own_group)
    reply = error(429, f"Rate limit reached: {named}.", kind="rate_limit_error", code="rate_limit_exceeded")
    reply.slug = slug
    reply.headers.append((b"retry-after", b"%d" % -(-refusal.retry_after_ms // 1000)))
    reply.headers.append((b"retry-after-ms", b"%d" % refusal.retry_after_ms))
    reply.lines = rate_lines(refusal.standings)
    return reply


def used_up(slug: str, refusal: days.DayRefusal, now: datetime, own_group: str) -> Reply:
    """429 for a used-up day or month, until the midnight UTC that ends it: who retried before would only lose time.

    Where only requests in flight hold the day, it is asked for again in a second: they may use less than is reserved.
    """
    limit = refusal.limit
    unit = f"per {limit.unit.value}"
    named = _named(limit, slug, unit, own_group)
    if refusal.rests_on_reservations:
        message = f"Usage limit held by requests in flight: {named}."
        reply = error(429, message, kind="rate_limit_error", code="rate_limit_exceeded")
        reply.slug = slug
        reply.headers.extend(((b"retry-after", b"1"), (b"retry-after-ms", b"1000")))
        return reply
    ends = reset_at(now.date(), limit.unit)
    message = f"Usage limit reached: {named}. It resets at {rfc3339(ends)}."
    reply = error(429, message, kind="insufficient_quota", code="insufficient_quota")
    reply.slug = slug
    reply.headers.append((b"retry-after", b"%d" % math.ceil((ends - now).total_seconds())))
    reply.headers.append((b"x-should-retry", b"false"))
    return reply


def rate_lines(standings: Sequence[windows.LimitStanding]) -> bytes:
    """Return the ``x-ratelimit-*`` headers as they are sent: of each type the limit with the least remaining."""
    return b"".join(
        [
            _RATE_LINES[each.limit.type] % (each.limit.threshold, each.remaining, _span(math.ceil(each.reset_s)))
            for each in standings
        ]
    )


def passed_on(status: int, headers: Headers, body: bytes | mmap.mmap) -> Reply:
    """An upstream's own answer that is no success; its 401, 403 and redirects are the gateway's trouble: 502."""
    if status in (401, 403):
        return upstream_refused_credential()
    if 300 <= status < 400:
        return upstream_redirected()
    if not 400 <= status < 600:  # 101, or what HTTP does not know
        return upstream_broke_off()
    return of_upstream(status, headers, body)


def upstream_failed(failure: Failure) -> Reply:
    """502, 503 or 504: there was no answer."""
    if failure is Failure.NO_ROOM:
        return unavailable("the gateway holds as many connections to models' servers as it may")
    if failure in (Failure.TOO_SLOW, Failure.CONNECT_TOO_SLOW):
        return upstream_too_slow()
    return upstream_broke_off() if failure is Failure.BROKE_OFF else upstream_unreachable()


def upstream_unreachable() -> Reply:
    """502: no answer could be had from the model's server."""
    return error(502, "The model's server could not be reached.", kind="api_error", code="upstream_unreachable")


def upstream_refused_credential() -> Reply:
    """502: the upstream's own 401 or 403; it is the operator's or the lab's credential that is wrong, not the key."""
    return error(502, "The model's server refused the gateway.", kind="api_error", code="upstream_credential")


def upstream_redirected() -> Reply:
    """502: redirects are not followed."""
    return error(502, "The model's server answered with a redirect.", kind="api_error", code="upstream_redirect")


def upstream_broke_off() -> Reply:
    """502: the upstream began an answer and did not end it."""
    return error(502, "The model's server broke off its answer.", kind="api_error", code="upstream_error")


def upstream_too_slow() -> Reply:
    """504."""
    return error(504, "The model's server did not answer in time.", kind="api_error", code="upstream_timeout")


def unavailable(what: str) -> Reply:
    """503: something Tollgate depends on is down, or it holds as much as it may."""
    return error(503, f"Temporarily unavailable: {what}.", kind="api_error", code="service_unavailable")


def full(what: str) -> Reply:
    """503: all workspaces together hold as many (or as much) of `what` as the gateway may; some is soon given back."""
    reply = unavailable(f"the gateway has as much as it may of: {what}")
    reply.headers.append((b"retry-after", b"1"))
    return reply


def share_exceeded(what: str) -> Reply:
    """429: the caller's workspace, or its key, has its share of `what`, so that others have theirs."""
    message = f"This workspace, or this key, has its share of what the gateway may have of: {what}."
    reply = error(429, message, kind="rate_limit_error", code="share_exceeded")
    reply.headers.append((b"retry-after", b"1"))
    return reply


def fault() -> Reply:
    """500: a fault of the gateway's own, in its log under the request's id."""
    return error(500, "The gateway failed; its log says more under this x-request-id.", kind="api_error")


def _named(limit: windows.WindowLimit | days.DayLimit, slug: str, unit: str, own_group: str) -> str:
    """Name a limit to a developer, who learns of no group but the key's own."""
    source = f"group {own_group}" if limit.source_group == own_group else "a group above this key's own"
    return f"{limit.threshold} {limit.type.value} {unit} for {limit.counted_slug(slug)}, set by {source}"


@lru_cache(4096)
def _span(seconds: int) -> bytes:
    """Return a time as OpenAI's headers do: ``1s``, ``6m0s``."""
    minutes, rest = divmod(seconds, 60)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest
