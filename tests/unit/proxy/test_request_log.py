"""Every request that is refused or fails has a line and a record; neither holds a prompt or an answer (contract 6)."""

import asyncio
import io
import json
import logging
from dataclasses import dataclass, replace
from typing import Any

import pytest

from proxy import request_log, tally
from proxy.core import replies
from proxy.core.calls import Failure
from proxy.dialects.routes import messages
from proxy.limits.days import DayLimit
from proxy.request_log import RequestLog
from proxy.tally import Tally
from runtime.deadlines import Deadlines
from runtime.telemetry import logs
from runtime.telemetry.logs import LogFormat
from runtime.telemetry.metrics import Telemetry
from schemas.limits import LimitType
from schemas.monitoring.requests import RequestEnd, RequestRecord
from schemas.monitoring.status import OUTCOMES
from tests.unit.proxy import kit
from tests.unit.proxy.bodies import ASKED, DONE, HELLO, PLAIN, STREAMED
from tests.unit.proxy.fakes import FakeClient
from tests.unit.proxy.kit import House, Step
from tests.unit.proxy.virtual_time import in_virtual_time


@dataclass(frozen=True)
class Case:
    """A call that does not go well, and what is told of it."""

    told: dict[str, Any]
    body: bytes = ASKED
    authorization: bytes | None = b"Api-Key " + kit.TEXT_KEY
    steps: tuple[Step, ...] = ()
    status: int = 200
    stream: bool = False
    failure: Failure | Exception | None = None


HOLDER = {"workspace_id": kit.WORKSPACE, "group_id": kit.GROUP, "api_key_prefix": kit.key().prefix}
NOBODY = {"workspace_id": None, "group_id": None, "api_key_prefix": None}
CALLED = {"model_slug": kit.SLUG, "upstream": "up.example", "ended": RequestEnd.FAILED, **HOLDER}

CASES = {
    "no key": Case({"status": 401, "reason": "invalid_api_key", "ended": RequestEnd.REFUSED, **NOBODY}, ASKED, None),
    "an unknown slug": Case(
        {"status": 404, "reason": "model_not_found", "model_slug": "no/such", **HOLDER},
        b'{"model":"no/such","messages":[{"role":"user","content":"Say hi"}]}',
    ),
    "a body that is wrong": Case(
        {"status": 400, "reason": "invalid_request_error", "detail": "field stream", **HOLDER},
        ASKED[:-1] + b',"stream":"Say hi"}',
    ),
    "an upstream that is not there": Case(
        {"status": 502, "reason": "upstream_unreachable", "is_billed": False, **CALLED}, failure=Failure.UNREACHABLE
    ),
    "an upstream that refuses": Case(
        {"status": 429, "reason": "upstream_status", "detail": None, **CALLED}, steps=(b"hello world",), status=429
    ),
    "a stream that breaks off": Case(
        {"status": 200, "reason": "upstream_error", "is_billed": True, **CALLED}, STREAMED, steps=(HELLO,), stream=True
    ),
    "a fault of ours": Case(
        {"status": 500, "reason": "api_error", "ended": RequestEnd.FAILED, **HOLDER}, failure=RuntimeError("Say hi")
    ),
}


async def _served(house: House, case: Case) -> FakeClient:
    if case.failure is not None:
        house.upstream.fails(case.failure)
    elif case.steps:
        content_type = "text/event-stream" if case.stream else "application/json"
        house.upstream.answers(*case.steps, status=case.status, content_type=content_type)
    return await house.serve(house.client(case.body, case.authorization))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@in_virtual_time
async def test_a_call_that_does_not_go_well_has_one_line_and_one_record(
    house: House, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    with caplog.at_level(logging.INFO, "tollgate.requests"):
        client = await _served(house, case)
    (record,) = house.requests.take()
    assert {name: getattr(record, name) for name in case.told} == case.told
    assert client.header(b"x-request-id") == record.request_id.encode()
    (line,) = [each for each in caplog.records if each.name == "tollgate.requests"]
    told = line.__dict__["fields"]
    assert (told["request_id"], told["status"], told["reason"]) == (record.request_id, record.status, record.reason)
    for private in ("Say hi", "hello world", kit.TEXT_KEY.decode()):
        assert private not in f"{told} {record.model_dump_json()}"
    assert house.requests.take() == []


@in_virtual_time
async def test_a_refusal_names_its_limit_and_how_long_an_answer_took(house: House) -> None:
    limit = DayLimit(LimitType.REQUEST, 0, kit.GROUP, kit.GROUP)
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.route(day_limits=(limit,))
    await house.serve(house.client(ASKED))
    (refused,) = house.requests.take()
    assert (refused.status, refused.reason, refused.model_slug) == (429, "insufficient_quota", kit.SLUG)
    assert refused.detail is not None
    assert refused.detail.startswith(f"Usage limit reached: 0 REQUEST per DAY for {kit.SLUG}")
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.route()
    house.upstream.fails(Failure.BROKE_OFF, before=[7.0])
    await house.serve(house.client(ASKED))
    (failed,) = house.requests.take()
    assert (failed.latency_ms, failed.first_byte_ms, failed.ended) == (7000, None, RequestEnd.FAILED)


@in_virtual_time
async def test_a_client_that_left_is_told_of_with_status_0(house: House) -> None:
    client = house.client(ASKED)
    house.upstream.answers(PLAIN, before=[client.leave, kit.DRAIN_S + 1])
    await house.serve(client)
    (record,) = house.requests.take()
    assert (record.status, record.reason, record.is_billed) == (0, "client_disconnected", True)


@in_virtual_time
async def test_a_gateway_that_stops_tells_what_it_cut_off(house: House) -> None:
    called = asyncio.Event()
    house.upstream.answers(called.set, kit.Hang())
    serving = asyncio.create_task(house.serve(house.client(ASKED)))
    await called.wait()
    serving.cancel()
    await asyncio.wait({serving})
    (record,) = house.requests.take()
    assert record.reason == "gateway_interrupted"


@pytest.mark.parametrize(
    ("change", "status", "workspace"),
    [({"disabled": True}, 401, None), ({"suspended": True}, 403, kit.WORKSPACE)],
)
@in_virtual_time
async def test_a_key_that_is_known_and_refused_is_named_and_a_401_belongs_to_no_workspace(
    house: House, change: dict[str, Any], status: int, workspace: str | None
) -> None:
    house.directory.keys[kit.key().prefix] = kit.key(**change)
    await house.serve(house.client(ASKED))
    (record,) = house.requests.take()
    assert (record.status, record.api_key_prefix) == (status, kit.key().prefix)
    assert record.workspace_id == workspace


@pytest.mark.parametrize("takes_all", [False, True])
@in_virtual_time
async def test_complete_requests_have_a_line_where_all_are_to_have_one_and_never_a_record(
    caplog: pytest.LogCaptureFixture, *, takes_all: bool
) -> None:
    house = House()
    house.requests._takes_all = takes_all
    with caplog.at_level(logging.INFO, "tollgate.requests"):
        for body, steps in ((ASKED, [PLAIN]), (STREAMED, [HELLO, DONE])):
            house.upstream.answers(*steps, content_type="text/event-stream" if body is STREAMED else "application/json")
            await house.serve(house.client(body))
        house.upstream.answers(b'{"input_tokens":5}')
        await house.gateway.complete(house.client(ASKED), messages.ROUTE, house.unmetered.serve)
    assert house.requests.take() == []
    lines = [record.__dict__["fields"]["status"] for record in caplog.records if record.name == "tollgate.requests"]
    assert lines == [200, 200, 200] * takes_all
    assert not [record for record in caplog.records if "reason" in record.__dict__.get("fields", {})]


@in_virtual_time
async def test_lines_and_records_are_bounded_a_second_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    requests = RequestLog("one", Deadlines(), takes_all=False)
    others = [replace(kit.key(), workspace_id=f"workspace-{number}") for number in range(2, 8)]
    with caplog.at_level(logging.INFO, "tollgate.requests"):
        for key in (kit.key(), *others):
            for number in range(2 * request_log.LINES_OF_WORKSPACE):
                requests.refused(replies.full("x"), f"{key.workspace_id}-{number}", key, 0.0)
        told = requests.take()
        assert len(told) == request_log.TOLD_PER_S
        own = [record for record in told if record.workspace_id == kit.WORKSPACE]
        assert len(own) == request_log.TOLD_OF_WORKSPACE
        assert len(caplog.records) == request_log.LINES_PER_S
        requests.say_what_was_left_out()
        requests.say_what_was_left_out()
        assert [each.getMessage() for each in caplog.records[request_log.LINES_PER_S :]] == [
            f"{14 * request_log.LINES_OF_WORKSPACE - request_log.LINES_PER_S} more requests were refused or failed, "
            "without a line"
        ]
        await asyncio.sleep(1)  # of virtual time
        requests.refused(replies.full("x"), "later", kit.key(), 0.0)
    assert [record.request_id for record in requests.take()] == ["later"]


@in_virtual_time
async def test_records_that_nobody_takes_give_way_to_newer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "MOST_WAITING", 3)
    requests = RequestLog("one", Deadlines(), takes_all=False)
    for number in range(5):
        requests.refused(replies.full("x"), f"request-{number}", kit.key(), 0.0)
    assert [record.request_id for record in requests.take()] == ["request-2", "request-3", "request-4"]


def test_a_record_is_read_as_it_was_written() -> None:
    record = RequestRecord(
        request_id="r", at=kit.NOW, ended=RequestEnd.REFUSED, status=429, reason="share_exceeded", instance="one"
    )
    assert RequestRecord.model_validate_json(record.model_dump_json()).reason == "share_exceeded"


@pytest.mark.parametrize("form", LogFormat)
def test_a_line_is_text_or_json_and_cannot_be_ended_by_what_it_shows(
    form: LogFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr("sys.stderr", written)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.configure(form)
    slug = 'a b"\n\x1b[31m\u2028='
    logs.say(logging.getLogger("tollgate.requests"), "refused", slug=slug, status=404, group=None)
    line = written.getvalue()
    assert line.count("\n") == 1
    assert line.isascii()
    assert line.removesuffix("\n").isprintable()
    if form is LogFormat.JSON:
        told = json.loads(line)
        assert told.pop("time").endswith("Z")
        logger = {"level": "INFO", "logger": "tollgate.requests"}
        assert told == {**logger, "message": "refused", "slug": slug, "status": 404}
    else:
        time, _, rest = line.partition(" ")
        assert time.endswith("Z")
        assert rest == f"INFO tollgate.requests: refused slug={json.dumps(slug)} status=404\n"


@in_virtual_time
async def test_calls_are_counted_by_group_and_slug_with_the_gateways_own_time_apart(house: House) -> None:
    house.upstream.answers(PLAIN, before=[2.0])
    await house.serve(house.client(ASKED))
    await _served(house, CASES["an upstream that refuses"])
    await house.serve(house.client(ASKED, None))
    await house.serve(house.client(b'{"model":"no/such","messages":[]}'))
    cells = house.requests.tally.cells
    assert set(cells) == {(kit.WORKSPACE, kit.GROUP, kit.SLUG), ("", "", ""), (kit.WORKSPACE, kit.GROUP, "")}
    served = cells[kit.WORKSPACE, kit.GROUP, kit.SLUG]
    assert dict(zip(OUTCOMES, served.outcomes, strict=True)) == dict.fromkeys(OUTCOMES, 0) | {
        "complete": 1,
        "failed": 1,
    }
    assert (served.whole.sum, served.first_byte.sum, sum(served.own.counts)) == (2.0, 2.0, 1)
    assert served.own.sum == 0.0, "no virtual time passes in the gateway itself"
    telemetry = Telemetry()
    house.requests.register_metrics(telemetry)
    text = (await telemetry.text()).decode()
    labels = f'slug="{kit.SLUG}",workspace="{kit.WORKSPACE}"'
    assert f'tollgate_calls_total{{outcome="complete",{labels}}} 1.0' in text
    assert f'tollgate_call_seconds_bucket{{le="2.5",{labels}}} 2.0' in text
    assert f"tollgate_call_own_seconds_count{{{labels}}} 1.0" in text
    assert "no/such" not in text


def test_series_and_cells_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MOST_CELLS", 4)
    monkeypatch.setattr(tally, "MOST_SHOWN", 2)
    counted = Tally()
    for number in range(9):
        counted.cell("w", f"group-{number % 2}", f"slug-{number // 2}").outcomes[0] += 1
    assert len(counted.cells) == 5
    assert counted.cells["other", "other", "other"].outcomes[0] == 5
    shown = {pair: cell.outcomes[0] for pair, cell in counted._by_pair()}
    assert shown == {("w", "slug-0"): 2, ("w", "slug-1"): 2, ("other", "other"): 5}


def test_what_is_taken_is_what_was_counted_since_the_last_time() -> None:
    counted = Tally()
    cell, idle = counted.cell("w", "g", "a/b"), counted.cell("w", "h", "a/b")
    idle.outcomes[1] += 1
    for seconds in (0.02, 400.0):
        cell.outcomes[0] += 1
        cell.whole.observe(seconds)
    first = {one.group_id: one for one in counted.take()}
    assert first["g"].outcomes == {"complete": 2}
    assert first["h"].outcomes == {"client_disconnected": 1}
    assert (first["g"].whole.counts[1], first["g"].whole.counts[-1], first["g"].whole.sum_s) == (1, 1, 400.02)
    assert counted.take() == []
    cell.outcomes[5] += 1
    cell.whole.observe(1.0)
    [second] = counted.take()
    assert (second.workspace_id, second.slug, second.outcomes) == ("w", "a/b", {"refused": 1})
    assert (sum(second.whole.counts), round(second.whole.sum_s, 6)) == (1, 1.0)


def test_a_slug_longer_than_any_of_an_endpoint_is_cut_where_others_read_it() -> None:
    counted = Tally()
    counted.cell("w", "", "a/" + "x" * 300).outcomes[5] += 1
    assert [len(one.slug) for one in counted.take()] == [255]
