"""Settings: one place for every ``TOLLGATE_*`` variable and ``tollgate.toml`` name (spec section 6).

Never reads anything else from the environment, and never prints a secret's value.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "TOLLGATE_"
FILE_NAME = "tollgate.toml"

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Bytes = Annotated[int, Field(ge=1024)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s{}?#]+$")]

_BASETEN_URL = r"^https?://([^\s{}?#]|\{model_id\}|\{environment_name\})+$"


class SettingsError(Exception):
    """A setting is wrong or unknown; the message says which one and what is allowed."""


class SpoolSync(StrEnum):
    """When an event of the spool is on disk: `normal` survives kill -9, `full` a power cut too."""

    NORMAL = "normal"
    FULL = "full"


class OnDisconnect(StrEnum):
    """What becomes of an upstream's answer whose client has gone: read on for its counts, or end it at once."""

    DRAIN = "drain"
    CANCEL = "cancel"


class Settings(BaseSettings):
    """Every setting with its default. The environment wins over the file, the command line over both."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    data_dir: Path = Path("data")
    host: str = "127.0.0.1"
    port: Port = 8080
    ops_host: str = "127.0.0.1"
    ops_port: Port = 8081
    public_metrics: bool = False
    master_key: SecretStr | None = None
    database_url: SecretStr | None = None
    kafka_bootstrap: str | None = None
    kafka_topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    kafka_partitions: Annotated[int, Field(ge=1, le=1000)] = 12
    kafka_replication: Annotated[int, Field(ge=1, le=9)] = 3
    kafka_min_insync_replicas: Annotated[int, Field(ge=1, le=9)] = 2
    ledger_days: Annotated[int, Field(ge=100, le=10_000)] = 130

    accept_bearer: bool = False
    allow_private_upstreams: bool = False
    allow_private_receivers: bool = False

    max_body_bytes: Bytes = 16 * 1024 * 1024
    max_buffered_bytes: Bytes = 512 * 1024 * 1024
    body_timeout_s: Seconds = 30
    upstream_connect_timeout_s: Seconds = 5
    upstream_first_byte_timeout_s: Seconds = 300
    upstream_idle_timeout_s: Seconds = 120

    openai_base_url: HttpUrl = "https://api.openai.com/v1"
    baseten_model_api_url: HttpUrl = "https://inference.baseten.co/v1"
    baseten_url_template: Annotated[str, Field(pattern=_BASETEN_URL)] = (
        "https://model-{model_id}.api.baseten.co/environments/{environment_name}/sync/v1"
    )
    baseten_api_key: SecretStr | None = None

    on_disconnect: OnDisconnect = OnDisconnect.DRAIN
    drain_seconds: Seconds = 30
    drain_max: Annotated[int, Field(ge=0)] = 1000
    bill_interrupted: bool = True

    spool_sync: SpoolSync = SpoolSync.NORMAL
    spool_max_bytes: Bytes = 10 * 1024 * 1024 * 1024

    events_hold_back_s: Annotated[float, Field(ge=0, le=86_400)] = 60

    webhook_batch_size: Annotated[int, Field(ge=1, le=100)] = 100
    webhook_linger_ms: Annotated[int, Field(ge=0, le=60_000)] = 1000
    webhook_retry_for_s: Annotated[float, Field(gt=0, le=604_800)] = 15
    webhook_attempt_timeout_s: Annotated[float, Field(gt=0, le=60)] = 10
    webhook_backoff_first_s: Seconds = 1
    webhook_backoff_most_s: Seconds = 5
    webhook_concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    webhook_rate_per_s: Annotated[int, Field(ge=1, le=100_000)] | None = None
    webhook_auto_redrive: bool = True
    webhook_redrive_per_s: Annotated[float, Field(gt=0, le=10_000)] = 10

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment alone: `load` merges the file and the command line by itself."""
        return (env_settings, init_settings)


def load(config: Path | None = None, **overrides: Any) -> Settings:
    """Merge file, environment and `overrides` (None: not given), the last one winning. Raises SettingsError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    path = config or _find_file(given.get("data_dir"))
    try:
        settings = Settings(**(_read_file(path) if path else {}))
        return Settings.model_validate(settings.model_dump() | given) if given else settings
    except ValidationError as error:
        raise SettingsError(_explain(error, path)) from None


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Give one warning for each ``TOLLGATE_*`` variable that names no setting."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    warnings = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and not name.startswith(f"{PREFIX}TEST_"):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            warnings.append(f"{name} names no setting and is ignored; the nearest name is {near[0]}")
    return warnings


def _find_file(data_dir: Path | None) -> Path | None:
    folder = data_dir or Path(os.environ.get(f"{PREFIX}DATA_DIR", "data"))
    return next((path for path in (Path(FILE_NAME), Path(folder) / FILE_NAME) if path.is_file()), None)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as TOML: {error}") from None


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.0)
            lines.append(f"{path}: {name} is not a setting; the nearest name is {near[0]}")
        else:
            lines.append(f"{name} ({PREFIX}{name.upper()}): {problem['msg']}")
    return "; ".join(lines)
