"""The spool report: what a proxy has not published yet, `GET /spool` on its ops port (contract 4).

Holds no correction: those never come from a spool.

The answer is a bare list with at least one row for each instance that the proxy answers for, also of spools it has
drained. With `?upto=instance:sequence` (may be repeated) the figures of that instance end at that sequence.

How a comparison is exact while load goes on: up to `acknowledged_through` every event is in the topic, below a log end
that is read after the report; above it, up to `last_sequence`, every event is in the figures. An event above
`acknowledged_through` may be in the topic too (sent, its acknowledgement on its way), so whoever counts both leaves out
of the topic what has a higher sequence of that instance. Or: take `last_sequence` as the mark, and ask with `upto`
until the figures are empty; then every event up to the mark is in the topic.
"""

from datetime import date

from pydantic import Field

from schemas.base import Message


class SpoolFigures(Message):
    """What one spool holds unpublished for one workspace and UTC day."""

    instance: str = Field(description="The spool's id: `producer.instance` of its events.")
    workspace_id: str | None = Field(description="Null, with zero figures: the instance has nothing unpublished.")
    day: date | None = Field(description="The UTC day of the events; null where `workspace_id` is.")
    requests: int
    input_tokens: int
    output_tokens: int
    acknowledged_through: int = Field(description="Every event up to this sequence is in the topic.")
    last_sequence: int = Field(description="The newest event's sequence when the report was made; 0: there is none.")
