"""Daily usage: what a group itself consumed in a UTC day (contract 4).

Absolute figures, the last version wins; sums over groups equal the ledger.
"""

from datetime import date

from pydantic import Field

from schemas.base import InternalRecord, Timestamp


class DailyUsage(InternalRecord):
    """One (group, slug, day). Corrections are apart, so that a day's own figures never change by one."""

    workspace_id: str
    group_id: str
    external_entity_id: str
    model_slug: str
    day: date
    requests: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    corrections: int = Field(description="How many corrections carry this day as their own.")
    corrected_input_tokens: int = Field(description="Signed sum of the corrections.")
    corrected_output_tokens: int = Field(description="Signed sum of the corrections.")
    version: int
    updated_at: Timestamp
