"""What of a request's use, or of a sum of uses, counts against a limit (contract 2.2, 3.1).

Rules: REQUEST counts requests, TOKEN prompt plus completion, INPUT_TOKEN the prompt's part of it, OUTPUT_TOKEN the
completion's.
"""

from schemas.limits import LimitType


def counted(type_: LimitType, requests: int, tokens: int, output_tokens: int) -> int:
    """Return what counts against a limit of this type; `output_tokens` are part of `tokens`."""
    if type_ is LimitType.REQUEST:
        return requests
    if type_ is LimitType.TOKEN:
        return tokens
    return output_tokens if type_ is LimitType.OUTPUT_TOKEN else tokens - output_tokens
