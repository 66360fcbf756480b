"""What one proxy has of a counter near a limit that no total holds yet, told to the other proxies (contract 4)."""

from datetime import date

from schemas.base import InternalRecord


class InFlight(InternalRecord):
    """What is in flight, or ended and not counted in the totals that its proxy has heard. Key: group/slug/day/instance.

    Absolute, and void two seconds after it was heard, unless it was told again.
    """

    group_id: str
    model_slug: str
    day: date
    instance: str
    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int
