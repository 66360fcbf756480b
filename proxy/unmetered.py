"""The story of what is neither counted nor limited: `count_tokens`, for a key that may call the slug (contract 3.3).

They make no event. It takes of its workspace's shares as any request does.
"""

from proxy import reading, shares
from proxy.admission import Admissions
from proxy.call import upstream_request
from proxy.core import replies
from proxy.core.calls import BrokenOffError, Failure, Key, UpstreamRequest
from proxy.core.replies import Reply
from proxy.deadlines import Deadline, Drains
from proxy.dialects.routes.api import ApiRoute
from proxy.ports import Client, Upstream
from proxy.reading import Answer
from proxy.shares import AnswerRoom, AnswersFullError, WorkspaceShares
from runtime.deadlines import Deadlines
from runtime.memory_files import content

_NO_DRAINS = Drains(0, 0)
"""An upstream whose client has gone is not read on: there is nothing to count."""


class Unmetered:
    """Serves such calls. Times in seconds."""

    def __init__(
        self,
        *,
        admissions: Admissions,
        upstream: Upstream,
        deadlines: Deadlines,
        first_byte_s: float,
        idle_s: float,
        request_s: float,
        shares: WorkspaceShares,
    ) -> None:
        self._admissions = admissions
        self._upstream = upstream
        self._deadlines = deadlines
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._request_s = request_s
        self._shares = shares

    async def serve(self, client: Client, key: Key, api: ApiRoute) -> Reply:
        """Return the upstream's answer to a call that was let in, or what refuses it: `flow.Story`."""
        envelope = client.envelope
        if isinstance(envelope, Reply):
            return envelope
        body = await client.body(key.workspace_id)
        if isinstance(body, Reply):
            return body
        found = self._shares.read(key, len(body)) or await self._admissions.find(key, body, api)
        if isinstance(found, Reply):
            return found
        read, route = found
        request_id = client.request_id = self._admissions.request_id()
        room = self._shares.room(key)
        try:
            return await self._ask(client, upstream_request(read.request, route, api, request_id, envelope), room)
        finally:
            room.close()

    async def _ask(self, client: Client, sent: UpstreamRequest, room: AnswerRoom) -> Reply:
        sent.hold = room.hold
        answer: Answer | None = None
        try:
            with Deadline(_NO_DRAINS, self._deadlines, within_s=self._request_s) as bound:
                client.on_gone(bound.client_gone)
                bound.expect(self._first_byte_s)
                opened = await self._upstream.open(sent)
                if isinstance(opened, Failure):
                    return replies.upstream_failed(opened)
                answer = opened
                told = content(await reading.whole(answer, bound, self._idle_s, room.hold))
                passed = replies.of_upstream if 200 <= answer.status < 300 else replies.passed_on
                return passed(answer.status, answer.headers, told)
        except TimeoutError:
            return replies.upstream_too_slow()
        except AnswersFullError as error:
            return shares.refused(error.excess, "answers")
        except BrokenOffError:
            return replies.upstream_broke_off()
        finally:
            client.on_gone(None)
            if answer is not None:
                await answer.close()
