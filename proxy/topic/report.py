"""Reports what this proxy has not published yet: `GET /spool` on the ops port (contract 4).

The removal of rows waits while the figures are made, the publisher does not.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date

from litestar import get
from litestar.exceptions import ClientException, ServiceUnavailableException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromQuery

from proxy.spool.file import Sums
from proxy.topic.publisher import Mark, SpoolPublisher
from schemas.spool import SpoolFigures

_WITHIN_S = 30.0


async def unpublished(publisher: SpoolPublisher, upto: Mapping[str, int]) -> list[SpoolFigures]:
    """Return the figures of every instance, up to the sequence that `upto` names for it; see `schemas.spool`."""
    async with publisher.steady:
        figures = []
        for mark in publisher.marks():
            through = min(mark.last_sequence, upto.get(mark.instance, mark.last_sequence))
            sums: Sequence[Sums] = ()
            if mark.file is not None and through > mark.acknowledged_through:
                sums = await mark.file.sums(mark.acknowledged_through, through)
            figures += [_figures(mark, each) for each in sums] or [_figures(mark, None)]
        return figures


def handlers(publisher: SpoolPublisher) -> list[BaseRouteHandler]:
    """Return the ops port's handler."""

    @get("/spool", include_in_schema=False)
    async def spool(upto: FromQuery[list[str] | None] = None) -> list[SpoolFigures]:
        wanted = _parse(upto or [])
        try:
            async with asyncio.timeout(_WITHIN_S):
                return await unpublished(publisher, wanted)
        except TimeoutError:
            raise ServiceUnavailableException(
                f"the spool holds more than can be summed up in {_WITHIN_S:g} s"
            ) from None

    return [spool]


def _parse(upto: Sequence[str]) -> dict[str, int]:
    wanted = {}
    for each in upto:
        instance, _, sequence = each.rpartition(":")
        if not instance or not sequence.isdecimal() or not sequence.isascii() or len(sequence) > 18:
            raise ClientException(f"upto must be instance:sequence, not {each[:100]!r}")
        wanted[instance] = int(sequence)
    return wanted


def _figures(mark: Mark, sums: Sums | None) -> SpoolFigures:
    return SpoolFigures(
        instance=mark.instance,
        workspace_id=None if sums is None else sums.workspace_id,
        day=None if sums is None else date.fromisoformat(sums.day),
        requests=0 if sums is None else sums.requests,
        input_tokens=0 if sums is None else sums.input_tokens,
        output_tokens=0 if sums is None else sums.output_tokens,
        acknowledged_through=mark.acknowledged_through,
        last_sequence=mark.last_sequence,
    )
