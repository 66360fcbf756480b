"""One admitted request on its way: what it holds, what is sent of it, and what it comes to."""

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from proxy.core import endings, replies, usage_event
from proxy.core.calls import Envelope, Route, UpstreamRequest
from proxy.core.endings import Ending
from proxy.core.replies import Reply
from proxy.dialects import answers, chat, media
from proxy.dialects.routes.api import ApiRoute, Stream
from proxy.limits import concurrency, estimate, reservations, windows
from proxy.limits.estimate import TokenCounts
from schemas.usage import Outcome, UsageSource

NOT_COUNTED = answers.Count(estimate.NOTHING.tokens, UsageSource.NONE)


class Call(msgspec.Struct, eq=False):
    """One admitted request on its way."""

    api: ApiRoute
    asked: chat.ChatRequest
    route: Route
    request_id: str
    event: bytes
    """The beginning of its usage event."""
    expected: TokenCounts
    """The estimate to bill where the process dies; else `likely` is a better one."""
    day: reservations.DayReservation
    rate: windows.Reservation
    places: concurrency.HeldPlaces
    slot: int
    costs: media.Costs
    """Of media in its prompt."""
    envelope: Envelope | None = None
    """What goes on beside its body."""
    begun_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0
    """When its body was there, it was admitted, its event was made; on the event loop's clock, like `first_byte_s`."""
    answered: bool | None = None
    """Whether the upstream's answer is a 2xx; None: it has not begun."""
    first_byte_s: float | None = None
    stream: Stream | None = None
    prompt_tokens: int | None = None
    """Those of a prompt, where they were made already: of large bodies, and of those that were given up."""

    def header_lines(self) -> bytes:
        """Return what every answer to it carries, each line with its end: its rates as they stand for it now.

        A whole answer is sent after it was settled; a stream begins before, while its estimate holds the rates.
        """
        return b"x-request-id: %b\r\n%b" % (self.request_id.encode(), replies.rate_lines(self.rate.standings))

    def upstream_request(self) -> UpstreamRequest:
        """Return what is sent upstream."""
        return upstream_request(self.asked, self.route, self.api, self.request_id, self.envelope)

    def give_up_body(self, sent: UpstreamRequest, release: Callable[[], None]) -> None:
        """Forget the body once it has been sent. What would be billed without counts is made of it first."""
        sent.body = b""
        self.prompt_tokens = self.likely().input_tokens
        self.asked = replace(self.asked, body=b"", upstream_body=None)
        release()

    def cut_short(self, outcome: Outcome, reply: Reply) -> Ending:
        """Return how it ends where its upstream had not come to its end; `reply` tells a client that still waits."""
        return endings.cut_short(outcome, reply, stream=self.stream, answered=self.answered, likely=self.likely)

    def likely(self) -> TokenCounts:
        """Return the counts to bill where nobody has reported any: made from the body, so asked for only then."""
        prompt = self.prompt_tokens
        if prompt is None:
            prompt = self.api.prompt_tokens(self.asked.body, otherwise=self.expected.input_tokens, costs=self.costs)
        return replace(self.expected, input_tokens=prompt)

    def counted(self, count: answers.Count) -> answers.Count:
        """Return what is billed of a count: of a route that is opaque to us nothing is estimated."""
        return NOT_COUNTED if self.api.is_opaque and count.source is UsageSource.ESTIMATED else count

    def ended(self, outcome: Outcome, count: answers.Count, now_s: float) -> bytes:
        """Return its usage event."""
        self.ended_s, started_s, first_byte_s = now_s, self.started_s, self.first_byte_s
        first_byte_ms = None if first_byte_s is None else round((first_byte_s - started_s) * 1000)
        latency_ms = round((now_s - started_s) * 1000)
        cost, times_ms = self.day.cost_of(count.tokens), (latency_ms, first_byte_ms)
        return usage_event.ended(self.event, count.tokens, count.source, outcome, times_ms, cost)


def upstream_request(
    asked: chat.ChatRequest, route: Route, api: ApiRoute, request_id: str, envelope: Envelope | None
) -> UpstreamRequest:
    """Return what is sent upstream for a request."""
    return UpstreamRequest(
        route.url,
        asked.upstream_body
        or api.upstream_body(asked, route.target_model, stored_metadata_only=route.stored_metadata_only),
        request_id,
        route.credential,
        route.by_operator,
        route.dialect,
        workspace_id=route.workspace_id,
        envelope=envelope,
        max_output_tokens=route.max_output_tokens,
    )
