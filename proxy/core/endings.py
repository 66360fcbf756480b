"""What a call comes to: what is billed, and what its client still gets (contract 3, 4)."""

from collections.abc import Callable

import msgspec

from proxy.core import replies
from proxy.core.replies import Headers, Reply
from proxy.dialects import answers, forms
from proxy.dialects.routes.api import Stream
from proxy.limits.estimate import TokenCounts
from schemas.usage import Outcome, UsageSource

MAX_PLAIN_BYTES = 16 * 1024 * 1024
"""An unstreamed answer that grows beyond this counts as broken off."""


class Refused(msgspec.Struct):
    """A call that the upstream did not answer with 2xx: there is no event."""

    reply: Reply


class Billed(msgspec.Struct):
    """A call whose event is due, and what its client still gets once the event is durable."""

    outcome: Outcome
    count: answers.Count
    reply: Reply | None = None
    """The whole answer, where none was begun."""
    last: bytes | None = b""
    """Else what ends the stream; None: only the end of the connection tells that it is not whole."""
    client_lost: bool = False
    """Whether the client takes nothing any more."""


Ending = Refused | Billed


def plain(
    status: int, headers: Headers, answer: answers.Plain, likely: Callable[[], TokenCounts], echoed_bytes: int = 0
) -> Billed:
    """End a call that has its whole unstreamed answer, of whose text `echoed_bytes` are the prompt again.

    `likely` gives the counts to bill where nobody reports any; it costs a reading of the request's body.
    """
    count = answers.to_bill(answer.tokens, likely, answer.content_bytes - echoed_bytes, answer.choices)
    outcome = Outcome.UPSTREAM_ERROR if answer.failed else Outcome.COMPLETE
    return Billed(outcome, count, Reply(status, forms.plain_headers(headers), answer.body, large=answer.large))


def streamed(stream: Stream, likely: Callable[[], TokenCounts]) -> Billed:
    """End a call whose stream has come to its end, whole or not."""
    if stream.is_whole:
        count = answers.to_bill(stream.tokens, likely, stream.content_bytes, stream.choices)
        return Billed(Outcome.COMPLETE, count, None, stream.held)
    last = stream.held if stream.failed else error_event(stream, replies.upstream_broke_off())
    return Billed(Outcome.UPSTREAM_ERROR, _so_far(stream, likely), None, last)


def cut_short(
    outcome: Outcome,
    reply: Reply,
    *,
    stream: Stream | None,
    answered: bool | None,
    likely: Callable[[], TokenCounts],
) -> Ending:
    """End a call whose upstream had not come to its end.

    `answered` says whether its answer was a 2xx; None: it was still working. Whoever ended it, a 2xx is billed; one
    that was still working is billed, as is likely, unless it failed by itself.
    """
    if stream is not None:
        last = stream.held if stream.failed else error_event(stream, reply)
        return Billed(outcome, _so_far(stream, likely), None, last)
    failed = outcome is Outcome.UPSTREAM_ERROR
    if answered is False or (failed and not answered):
        return Refused(reply)
    count = answers.to_bill(None, likely, 0) if failed else answers.Count(likely(), UsageSource.ESTIMATED)
    return Billed(outcome, count, reply)


def error_event(stream: Stream, reply: Reply) -> bytes | None:
    """Return what ends a stream with an answer of the gateway's own; None where its form has nothing for it."""
    return stream.error_event(reply.status, reply.body)


def _so_far(stream: Stream, likely: Callable[[], TokenCounts]) -> answers.Count:
    if stream.is_counted:
        return answers.to_bill(stream.tokens, likely, stream.content_bytes)
    return answers.cut_short(stream.tokens, likely, stream.content_bytes)
