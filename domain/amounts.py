"""What of a request's use, or of a sum of uses, counts against a limit (contract 2.2, 3.1).

Rules: REQUEST counts requests, TOKEN prompt plus completion, INPUT_TOKEN the prompt's part of it, OUTPUT_TOKEN the
completion's; COST what they cost in whole minor units of a currency, of which a part counts as none.
"""

from schemas.limits import LimitType

COST_PARTS = 1_000_000
"""Costs are summed in millionths of a minor unit: a request may cost a thousandth of a cent."""

PLACE = {
    LimitType.REQUEST: 0,
    LimitType.TOKEN: 1,
    LimitType.OUTPUT_TOKEN: 2,
    LimitType.INPUT_TOKEN: 3,
    LimitType.COST: 4,
}
"""Where `each` has what counts against a limit of a type."""


def each(requests: int, tokens: int, output_tokens: int, cost: int = 0) -> tuple[int, int, int, int, int]:
    """Return what counts against limits of every type; `output_tokens` are part of `tokens`, `cost` in millionths."""
    return requests, tokens, output_tokens, tokens - output_tokens, cost // COST_PARTS


def counted(type_: LimitType, requests: int, tokens: int, output_tokens: int, cost: int = 0) -> int:
    """Return what counts against a limit of this type."""
    return each(requests, tokens, output_tokens, cost)[PLACE[type_]]
