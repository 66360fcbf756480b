"""The answers that are the proxy's own: OpenAI's shape, codes, and headers rounded up (contract 3)."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from proxy.core import endings, replies
from proxy.core.calls import Failure
from proxy.core.replies import Reply
from proxy.dialects.answers import StreamReader
from proxy.limits.days import DayLimit, DayRefusal
from proxy.limits.windows import LimitStanding, Refusal, WindowLimit
from schemas import base
from schemas.limits import LimitType, RateLimitUnit, UsageLimitUnit
from tests.unit.proxy import kit

REQUESTS = WindowLimit(LimitType.REQUEST, RateLimitUnit.MINUTE, 60, "parent", "own")
TOKENS = WindowLimit(LimitType.TOKEN, RateLimitUnit.SECOND, 100, "own", "own")


def header(reply: Reply, name: bytes) -> bytes:
    (value,) = [value for each, value in reply.headers if each == name]
    return value


@pytest.mark.parametrize(
    ("reply", "status", "kind", "code"),
    [
        (replies.bad_request("m", "p"), 400, "invalid_request_error", None),
        (replies.unauthorized("m"), 401, "invalid_request_error", "invalid_api_key"),
        (replies.suspended(kit.key()), 403, "invalid_request_error", "workspace_suspended"),
        (replies.model_not_found("a/b"), 404, "invalid_request_error", "model_not_found"),
        (replies.body_too_late(30), 408, "invalid_request_error", None),
        (replies.body_too_large(5), 413, "invalid_request_error", None),
        (replies.unavailable("x"), 503, "api_error", "service_unavailable"),
        (replies.upstream_unreachable(), 502, "api_error", "upstream_unreachable"),
        (replies.upstream_refused_credential(), 502, "api_error", "upstream_credential"),
        (replies.upstream_redirected(), 502, "api_error", "upstream_redirect"),
        (replies.upstream_broke_off(), 502, "api_error", "upstream_error"),
        (replies.upstream_too_slow(), 504, "api_error", "upstream_timeout"),
    ],
)
def test_errors_have_one_shape(reply: Reply, status: int, kind: str, code: str | None) -> None:
    body = json.loads(reply.body)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (reply.status, body["error"]["type"], body["error"]["code"]) == (status, kind, code)
    assert body["error"]["message"]
    assert header(reply, b"content-type") == b"application/json"


def test_replies_do_not_share_their_headers() -> None:
    replies.suspended(kit.key()).headers.append((b"x", b"y"))
    assert replies.suspended(kit.key()).headers == [(b"content-type", b"application/json")]


def test_an_error_as_the_end_of_a_stream() -> None:
    event = endings.error_event(StreamReader("lab/model", keep_usage=True), replies.upstream_broke_off())
    assert event is not None
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert json.loads(event[6:])["error"]["code"] == "upstream_error"


def test_a_slug_of_any_kind_can_be_named() -> None:
    message = json.loads(replies.model_not_found("é\n\x00" + "x" * 10_000).body)["error"]["message"]
    assert "\\n" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("wait_ms", "seconds"), [(1, b"1"), (999, b"1"), (1000, b"1"), (1001, b"2"), (50, b"1"), (63_000, b"63")]
)
def test_retry_after_is_whole_seconds_rounded_up(wait_ms: int, seconds: bytes) -> None:
    reply = replies.rate_limited("a/b", Refusal(TOKENS, wait_ms, ()), "own")
    assert header(reply, b"retry-after") == seconds
    assert header(reply, b"retry-after-ms") == b"%d" % wait_ms


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (datetime(2025, 3, 1, tzinfo=UTC), b"86400"),
        (datetime(2025, 3, 1, 23, 59, 59, tzinfo=UTC), b"1"),
        (datetime(2025, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC), b"1"),
        (datetime(2025, 3, 1, 23, 59, 58, 1, tzinfo=UTC), b"2"),
        (datetime(2024, 2, 28, 23, 0, tzinfo=UTC), b"3600"),
        (datetime(2024, 12, 31, 12, 0, tzinfo=UTC), b"43200"),
    ],
)
def test_a_used_up_day_ends_at_midnight(now: datetime, seconds: bytes) -> None:
    refusal = DayRefusal(DayLimit(LimitType.TOKEN, 7, "parent", "own"), rests_on_reservations=False)
    reply = replies.used_up("a/b", refusal, now, "own")
    assert header(reply, b"retry-after") == seconds
    assert header(reply, b"x-should-retry") == b"false"
    assert not [name for name, _ in reply.headers if name == b"retry-after-ms"]


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (datetime(2026, 11, 29, 12, tzinfo=UTC), b"129600"),
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), b"1"),
        (datetime(2024, 2, 1, tzinfo=UTC), b"2505600"),
    ],
)
def test_a_used_up_month_ends_with_it(now: datetime, seconds: bytes) -> None:
    limit = DayLimit(LimitType.TOKEN, 7, "parent", "own", unit=UsageLimitUnit.MONTH)
    reply = replies.used_up("a/b", DayRefusal(limit, rests_on_reservations=False), now, "own")
    assert header(reply, b"retry-after") == seconds
    error = json.loads(reply.body)["error"]
    assert error["code"] == "insufficient_quota"
    ends = base.rfc3339(now + timedelta(seconds=int(seconds)))
    limit_text = "7 TOKEN per MONTH for a/b, set by a group above this key's own"
    assert error["message"] == f"Usage limit reached: {limit_text}. It resets at {ends}."


def test_a_day_that_only_requests_in_flight_hold_is_asked_for_again_in_a_second() -> None:
    refusal = DayRefusal(DayLimit(LimitType.TOKEN, 7, "parent", "own"), rests_on_reservations=True)
    reply = replies.used_up("a/b", refusal, datetime(2025, 3, 1, tzinfo=UTC), "own")
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert all(named in error["message"] for named in ("7 TOKEN per DAY for a/b", "a group above", "in flight"))
    assert (header(reply, b"retry-after"), header(reply, b"retry-after-ms")) == (b"1", b"1000")
    assert not [name for name, _ in reply.headers if name == b"x-should-retry"]


@pytest.mark.parametrize(
    ("reset_s", "text"),
    [
        (0, b"0s"),
        (0.001, b"1s"),
        (1, b"1s"),
        (1.001, b"2s"),
        (59.5, b"1m0s"),
        (60, b"1m0s"),
        (360, b"6m0s"),
        (63.2, b"1m4s"),
    ],
)
def test_resets_are_written_as_openai_does(reset_s: float, text: bytes) -> None:
    lines = replies.rate_lines([LimitStanding(REQUESTS, 3, reset_s), LimitStanding(TOKENS, 0, reset_s)])
    assert lines.split(b"\r\n") == [
        b"x-ratelimit-limit-requests: 60",
        b"x-ratelimit-remaining-requests: 3",
        b"x-ratelimit-reset-requests: " + text,
        b"x-ratelimit-limit-tokens: 100",
        b"x-ratelimit-remaining-tokens: 0",
        b"x-ratelimit-reset-tokens: " + text,
        b"",
    ]


def test_no_rate_limits_no_headers() -> None:
    assert replies.rate_lines(()) == b""


@pytest.mark.parametrize("status", [400, 404, 408, 422, 429, 500, 503])
def test_an_upstreams_own_error_passes(status: int) -> None:
    headers = [(b"content-type", b"text/plain"), (b"retry-after", b"7")]
    assert replies.passed_on(status, headers, b"body") == Reply(status, headers, b"body")


@pytest.mark.parametrize("failure", Failure)
def test_every_failure_has_an_answer(failure: Failure) -> None:
    reply = replies.upstream_failed(failure)
    assert reply.status == (504 if "slow" in failure.value else 503 if failure is Failure.NO_ROOM else 502)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (101, "upstream_error"),
        (199, "upstream_error"),
        (300, "upstream_redirect"),
        (307, "upstream_redirect"),
        (399, "upstream_redirect"),
        (401, "upstream_credential"),
        (403, "upstream_credential"),
        (600, "upstream_error"),
        (999, "upstream_error"),
    ],
)
def test_what_must_not_pass_becomes_502(status: int, code: str) -> None:
    reply = replies.passed_on(status, [], b"secret")
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (502, code)
    assert b"secret" not in reply.body


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 599])
def test_an_upstreams_own_errors_pass(status: int) -> None:
    assert replies.passed_on(status, [], b"theirs").body == b"theirs"


@pytest.mark.parametrize(("source", "said"), [("own", "set by group own"), ("parent", "set by a group above")])
def test_a_refusal_names_a_group_to_its_own_key_alone(source: str, said: str) -> None:
    now = datetime(2025, 3, 1, 12, tzinfo=UTC)
    day = DayRefusal(DayLimit(LimitType.TOKEN, 7, source, "own"), rests_on_reservations=False)
    rate = Refusal(WindowLimit(LimitType.TOKEN, RateLimitUnit.MINUTE, 7, source, "own"), 5, ())
    for reply in (replies.used_up("a/b", day, now, "own"), replies.rate_limited("a/b", rate, "own")):
        message = json.loads(reply.body)["error"]["message"]
        assert said in message
        assert "parent" not in message
    assert (
        "It resets at 2025-03-02T00:00:00.000Z."
        in json.loads(replies.used_up("a/b", day, now, "own").body)["error"]["message"]
    )
