"""The upstream target of an endpoint, by provider (contract 2.1)."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from schemas.base import Message

ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,56}$")]
"""Becomes part of a host's name, whose labels hold 63 characters."""

EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")]
"""Becomes part of a path."""

MaxOutputTokens = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=1_000_000,
        description="What the model can answer at most, in tokens: no request reserves more for each of its choices, "
        "and ANTHROPIC is asked for as much where a request names no bound. Not set: the gateway's settings hold.",
    ),
]
UpstreamObjects = Annotated[
    bool,
    Field(
        strict=True,
        description="Whether requests may name objects at the upstream (`previous_response_id`, `file_id`, ...). One "
        "credential serves all of a lab's customers, so each could name what another has stored. Not set: false.",
    ),
]


class Provider(StrEnum):
    """Who serves the model."""

    ANTHROPIC = "ANTHROPIC"
    OPENAI = "OPENAI"
    BASETEN = "BASETEN"
    BASETEN_MODEL_API = "BASETEN_MODEL_API"
    VERTEX = "VERTEX"
    OPENAI_COMPATIBLE = "OPENAI_COMPATIBLE"


class VertexConfig(Message):
    """Where a VERTEX model runs."""

    project_id: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]{0,254}$", description="The cloud project's id or number."
    )
    location: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="The cloud location.")


class Target(Message):
    """Where an endpoint's calls go. Only the fields that were set are echoed; control says which belong together."""

    provider: Provider
    secret_id: str | None = Field(default=None, description="The workspace's secret that holds the credential.")
    target_model: str | None = Field(default=None, min_length=1, max_length=255, description="The upstream's name.")
    base_url: str | None = Field(default=None, description="OPENAI_COMPATIBLE: base URL with the version path.")
    model_id: ModelId | None = Field(default=None, description="BASETEN: the model.")
    environment_name: EnvironmentName | None = Field(default=None, description="BASETEN: `production` where not set.")
    vertex_config: VertexConfig | None = Field(default=None, description="VERTEX: project and location.")
