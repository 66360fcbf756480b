"""What of a request's use, or of a sum of uses, counts against a limit (contract 2.2, 3.1).

Rules: REQUEST counts requests, TOKEN prompt plus completion, INPUT_TOKEN the prompt's part of it, OUTPUT_TOKEN the
completion's; COST what they cost in whole minor units of a currency, of which a part counts as none.
"""

from schemas.limits import LimitType

COST_PARTS = 1_000_000
"""Costs are summed in millionths of a minor unit: a request may cost a thousandth of a cent."""


def counted(type_: LimitType, requests: int, tokens: int, output_tokens: int, cost: int = 0) -> int:
    """Return what counts against a limit of this type; `output_tokens` are part of `tokens`, `cost` in millionths."""
    if type_ is LimitType.REQUEST:
        return requests
    if type_ is LimitType.TOKEN:
        return tokens
    if type_ is LimitType.COST:
        return cost // COST_PARTS
    return output_tokens if type_ is LimitType.OUTPUT_TOKEN else tokens - output_tokens
