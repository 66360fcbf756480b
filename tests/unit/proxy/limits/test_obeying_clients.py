"""How long clients that obey take beside what a limit asks for: the SDK's own rule of retries, on a virtual clock."""

import heapq
from itertools import count
from typing import Any, cast

import openai
import pytest
from openai._models import FinalRequestOptions

from proxy.core import replies
from proxy.limits.windows import RateWindows, Refusal, WindowLimit
from schemas.limits import LimitType, RateLimitUnit

SLUG = "lab/model"
ANSWER_S = 0.6
RETRIES = 1000
OPTIONS = FinalRequestOptions.construct(method="post", url="/chat/completions")


def finished_s(calls: int, each: int, reserved: int, limit: WindowLimit) -> float:
    """Return when the last of `calls` that begin at once has its answer, on a clock that only waits move."""
    windows, limits, order = RateWindows(), [limit], count()
    due: list[tuple[float, int, Any]] = [(0.0, next(order), RETRIES) for _ in range(calls)]
    now = 0.0
    with openai.OpenAI(api_key="unused", base_url="http://nowhere.invalid", max_retries=RETRIES) as client:
        while due:
            now, _, step = heapq.heappop(due)
            if not isinstance(step, int):
                windows.settle(step, each, now, each // 2)
                continue
            taken = windows.reserve(SLUG, limits, reserved, now, reserved // 2)
            if isinstance(taken, Refusal):
                headers = {
                    name.decode(): value.decode() for name, value in replies.rate_limited(SLUG, taken, "g").headers
                }
                wait_s = client._calculate_retry_timeout(step, OPTIONS, cast("Any", headers))
                heapq.heappush(due, (now + wait_s, next(order), step - 1))
            else:
                heapq.heappush(due, (now + ANSWER_S, next(order), taken))
    return now


@pytest.mark.parametrize("reserved", [15, 400])
@pytest.mark.parametrize("a_minute", [150, 700])
def test_a_hundred_calls_that_obey_take_little_longer_than_their_limit_asks_for(a_minute: int, reserved: int) -> None:
    limit = WindowLimit(LimitType.TOKEN, RateLimitUnit.MINUTE, a_minute, "g", "g")
    calls, each = 100, 15
    asked_for_s = calls * each / a_minute * 60
    assert finished_s(calls, each, reserved, limit) < 1.2 * asked_for_s
