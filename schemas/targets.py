"""The upstream target of an endpoint, by provider (spec 2.1).

Never builds a URL: that is the proxy's directory.
"""

from enum import StrEnum

from pydantic import Field

from schemas.base import Message


class Provider(StrEnum):
    """Who serves the model. Only `OPENAI_COMPATIBLE` is served in this version."""

    OPENAI_COMPATIBLE = "OPENAI_COMPATIBLE"


class Target(Message):
    """Where an endpoint's calls go. Only the fields that were set are echoed."""

    provider: Provider
    base_url: str | None = Field(
        default=None, description="Base URL including the version path; without a trailing slash."
    )
    target_model: str | None = Field(default=None, min_length=1, max_length=255, description="The upstream's name.")
    secret_id: str | None = Field(default=None, description="The workspace's secret that holds the credential.")
