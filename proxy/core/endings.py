"""What a call comes to: what is billed, and what its client still gets (contract 3, 4).

Never sends or records anything.
"""

from dataclasses import dataclass

from proxy.core import replies
from proxy.core.replies import Headers, Reply
from proxy.dialects import answers
from schemas.usage import Outcome, Tokens, UsageSource

MAX_PLAIN_BYTES = 16 * 1024 * 1024
"""An unstreamed answer that grows beyond this counts as broken off."""


@dataclass(slots=True)
class Refused:
    """A call that the upstream did not answer with 2xx: there is no event."""

    reply: Reply


@dataclass(slots=True)
class Billed:
    """A call whose event is due, and what its client still gets once the event is durable."""

    outcome: Outcome
    count: answers.Count
    reply: Reply | None = None
    """The whole answer, where none was begun."""
    last: bytes = b""
    """Else what ends the stream."""
    client_lost: bool = False
    """Whether the client takes nothing any more."""


Ending = Refused | Billed


def plain(status: int, headers: Headers, body: bytes, slug: str, expected: Tokens) -> Billed:
    """End a call that has its whole unstreamed answer."""
    named, reported, content_bytes = answers.plain(body, slug)
    count = answers.to_bill(reported, expected.input_tokens, content_bytes)
    return Billed(Outcome.COMPLETE, count, Reply(status, headers, named))


def streamed(stream: answers.StreamReader, expected: Tokens) -> Billed:
    """End a call whose stream has come to its end."""
    return Billed(Outcome.COMPLETE, _so_far(stream, expected), None, stream.held)


def cut_short(
    outcome: Outcome, reply: Reply, *, stream: answers.StreamReader | None, answered: bool | None, expected: Tokens
) -> Ending:
    """End a call whose upstream had not come to its end.

    `answered` says whether its answer was a 2xx; None: it was still working. Whoever ended it, a 2xx is billed; one
    that was still working is billed, as expected, unless it failed by itself.
    """
    if stream is not None:
        return Billed(outcome, _so_far(stream, expected), None, replies.as_event(reply))
    failed = outcome is Outcome.UPSTREAM_ERROR
    if answered is False or (failed and not answered):
        return Refused(reply)
    count = (
        answers.to_bill(None, expected.input_tokens, 0) if failed else answers.Count(expected, UsageSource.ESTIMATED)
    )
    return Billed(outcome, count, reply)


def _so_far(stream: answers.StreamReader, expected: Tokens) -> answers.Count:
    return answers.to_bill(stream.tokens, expected.input_tokens, stream.content_bytes)
