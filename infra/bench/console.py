"""The console over a large workspace on the embedded default: the time of each page of 100,000 groups with 10,000,000
events in 30 days.

The daily table holds them all, a row for each group in every third day; the ledger holds the newest alone, of which its
pages read 200 at most, by an index.
"""

import re
import statistics
import time
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
from sqlalchemy import Connection

from domain.sources import EventBatch
from infra.bench import management
from infra.screenshots import month
from metering.store import transaction
from runtime import clock
from runtime.database import engines

EVENTS, DAYS, EVERY = 10_000_000, 30, 3
NEWEST = 20_000
"""Events of the ledger."""
CALLS = 11
AIM_MS = 200
_FILL = """
INSERT INTO usage_daily (day, lane, group_id, model_slug, workspace_id, external_entity_id, requests, input_tokens,
  output_tokens, cached_input_tokens, corrections, corrected_input_tokens, corrected_output_tokens, version, changed_at,
  updated_at)
SELECT :day, 'bench', id, 'bench/m', workspace_id, external_entity_id, :each, 700 * :each, 200 * :each, 0, 0, 0, 0, 1,
  1, :at FROM groups WHERE rowid % :every = :turn
"""


def bench(folder: Path) -> int:
    """Fill, serve, sign in, look; print the table. Return 1 where a page's median is above the aim."""
    data = folder / "data"
    made = management.answer("workspace", "create", "--name", "bench", "--org-prefix", "bench", "--data", str(data))
    groups = management.fill(data, made["workspace_id"], management.GROUPS, 1)
    _use(data, made["workspace_id"], groups)
    with management.served(data) as (url, _), httpx.Client(base_url=f"{url}/console", timeout=60) as browser:
        form = re.search(r'name="form_token" value="([^"]+)"', browser.get("/sign-in").text)
        if form is None:
            raise ValueError("the form to sign in has no token")
        fields = {"form_token": form[1], "key": made["api_key"], "next": ""}
        browser.post("/sign-in", data=fields)
        return _measure(browser, groups[len(groups) // 2])


def _measure(browser: httpx.Client, group: str) -> int:
    pages = {
        "overview": "/overview",
        "customers": "/customers",
        "customers that begin with a text": "/customers?q=customer-77",
        "a customer": f"/customers/{group}",
        "events": "/events",
        "events of a customer": "/events?customer=customer-77",
        "a month by model": "/usage?by=model",
        "a month by customer and model": "/usage",
        "models": "/models",
        "the webhook": "/webhook",
    }
    slowest = 0.0
    for name, path in pages.items():
        times_ms = sorted(_timed_ms(browser, path) for _ in range(CALLS))
        print(f"{name:<34} p50 {statistics.median(times_ms):7.1f} ms   worst {times_ms[-1]:7.1f} ms", flush=True)
        slowest = max(slowest, statistics.median(times_ms))
    print(f"aim: each under {AIM_MS} ms")
    return 0 if slowest < AIM_MS else 1


def _timed_ms(browser: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    answer = browser.get(path)
    took_ms = (time.perf_counter() - began) * 1000
    answer.raise_for_status()
    if answer.is_redirect:
        raise ValueError(f"{path} leads to {answer.headers['location']}")
    return took_ms


def _use(data: Path, workspace_id: str, groups: list[str]) -> None:
    """Write what the events have come to, as metering would have."""
    now = datetime.now(UTC)
    rows = DAYS * len(groups) // EVERY
    customers = [month.Customer(f"customer-{n}", groups[n], (groups[n],), f"sky_{n:08}0000", 1, 0) for n in range(100)]
    with engines.sqlite(data / "tollgate.db") as opened:
        for back in range(DAYS):
            fill = partial(_fill_day, day=now.date() - timedelta(days=back), each=max(1, EVENTS // rows), now=now)
            opened.write_now(fill)
        events = list(month.calls_of(workspace_id, customers, now, 0, NEWEST))
        for start in range(0, len(events), 2000):
            some = events[start : start + 2000]
            batch = EventBatch("bench", 0, "bench/0", start, start + len(some), tuple(some))
            opened.write_now(partial(transaction.apply, batch=batch, clock=clock.steady()))
    print(f"filled {rows:,} rows of daily usage, {EVENTS:,} events; {len(events):,} in the ledger", flush=True)


def _fill_day(connection: Connection, day: date, each: int, now: datetime) -> None:
    given = {"day": day.isoformat(), "each": each, "every": EVERY, "turn": day.toordinal() % EVERY}
    connection.exec_driver_sql(_FILL, given | {"at": now.strftime("%Y-%m-%d %H:%M:%S.%f")})
