"""What of a request's use, or of a sum of uses, counts against a limit (contract 2.2, 3.1).

Rules: REQUEST counts requests, TOKEN prompt plus completion, INPUT_TOKEN the prompt's part of it, OUTPUT_TOKEN the
completion's.
"""

from schemas.limits import LimitType

PLACE = {LimitType.REQUEST: 0, LimitType.TOKEN: 1, LimitType.OUTPUT_TOKEN: 2, LimitType.INPUT_TOKEN: 3}
"""Where `each` has what counts against a limit of a type."""


def each(requests: int, tokens: int, output_tokens: int) -> tuple[int, int, int, int]:
    """Return what counts against limits of every type; `output_tokens` are part of `tokens`."""
    return requests, tokens, output_tokens, tokens - output_tokens


def counted(type_: LimitType, requests: int, tokens: int, output_tokens: int) -> int:
    """Return what counts against a limit of this type."""
    return each(requests, tokens, output_tokens)[PLACE[type_]]
