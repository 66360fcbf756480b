"""Answers what may not come in: with its request id, and never faster than others are served."""

import math

from proxy.admission import Admissions
from proxy.core.calls import Key
from proxy.core.replies import Reply
from proxy.ports import Client
from proxy.request_log import RequestLog
from runtime.turns import Turns


class Refusals:
    """The refusals of one proxy, which the request log is told of."""

    def __init__(self, admissions: Admissions, requests: RequestLog) -> None:
        self._admissions = admissions
        self._requests = requests
        self._turns = Turns()

    async def answer(self, client: Client, reply: Reply, key: Key | None = None, begun_s: float = math.inf) -> None:
        """Answer a call; who asks again at once is answered no faster than others are served.

        `begun_s`: since when it was served, on the event loop's clock; infinite where it is refused at once.
        """
        client.request_id = self.name(reply, key, begun_s, client.request_id)
        await self._turns.take("" if key is None else key.workspace_id)
        await client.reply(reply)

    def name(self, reply: Reply, key: Key | None = None, begun_s: float = math.inf, request_id: str = "") -> str:
        """Put its request's id on an answer, a new one where there is none yet, tell of it, and return it."""
        request_id = request_id or self._admissions.request_id()
        reply.lines += b"x-request-id: %b\r\n" % request_id.encode()
        self._requests.refused(reply, request_id, key, begun_s)
        return request_id
