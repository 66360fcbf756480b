"""Settings: one place for every ``TOLLGATE_*`` variable and ``tollgate.toml`` name (contract 6).

Never prints a secret's value.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from runtime import redis, vault
from runtime.kafka.security import Sasl, SaslMechanism, Security, SecurityError, SecurityProtocol, Tls
from runtime.telemetry.logs import LogFormat

PREFIX = "TOLLGATE_"
FILE_NAME = "tollgate.toml"

_INJECTED = ("port", "ops_port")
_INJECTED_VALUE = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
"""Kubernetes gives every pod ``NAME_PORT=tcp://10.0.0.1:8080`` of each Service, so one called ``tollgate`` or
``tollgate-ops`` would set a port of ours."""

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Bytes = Annotated[int, Field(ge=1024)]
Share = Annotated[float, Field(gt=0, le=1)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s{}?#]+$")]

_BROKER = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


def _brokers(text: str) -> str:
    found = [_BROKER.fullmatch(broker) for broker in text.split(",")]
    if not all(broker and 0 < int(broker[2]) <= 65_535 for broker in found):
        raise ValueError("must be host:port, or several with commas between them, as kafka-1:9092,kafka-2:9092")
    return text


def _postgres(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):  # the driver reads the rest
        raise ValueError("must be postgresql://USER:PASSWORD@HOST:PORT/NAME")
    return url


def _redis(url: SecretStr) -> SecretStr:
    redis.place(url.get_secret_value())
    return url


def _key(text: SecretStr) -> SecretStr:
    try:
        vault.decode_key(text.get_secret_value())
    except vault.VaultError as error:
        raise ValueError(str(error)) from None
    return text


Brokers = Annotated[str, AfterValidator(_brokers)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
MasterKey = Annotated[SecretStr, AfterValidator(_key)]

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


class _Environment(EnvSettingsSource):
    """The environment, without what Kubernetes puts there."""

    def __call__(self) -> dict[str, Any]:
        """Return what is set, by the settings' names."""
        return {name: value for name, value in super().__call__().items() if not _is_injected(name, value)}


Origin = Annotated[str, Field(pattern=r"^https?://[^\s/?#]+$")]
"""Scheme, host and port of a URL."""


class Settings(BaseSettings):
    """Every setting with its default. The environment wins over the file, the command line over both."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    data_dir: Path = Path("data")
    host: str = "127.0.0.1"
    port: Port = 8080
    ops_host: str = "127.0.0.1"
    ops_port: Port = 8081
    public_metrics: bool = False
    log_format: LogFormat = LogFormat.TEXT
    access_log: bool = False
    console_url: Origin = "http://127.0.0.1:8080"
    inference_url: Origin | None = None
    strict_hosts: bool = False
    master_key: MasterKey | None = None
    database_url: PostgresUrl | None = None
    database_direct_url: PostgresUrl | None = None
    database_prepare_threshold: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    kafka_bootstrap: Brokers | None = None
    kafka_security_protocol: SecurityProtocol = SecurityProtocol.PLAINTEXT
    kafka_tls_ca_file: FilePath | None = None
    kafka_tls_certificate_file: FilePath | None = None
    kafka_tls_key_file: FilePath | None = None
    kafka_tls_key_password: SecretStr | None = None
    kafka_tls_check_hostname: bool = True
    kafka_sasl_mechanism: SaslMechanism | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_sasl_token_url: HttpUrl | None = None
    kafka_sasl_client_id: str | None = None
    kafka_sasl_client_secret: SecretStr | None = None
    kafka_sasl_scope: str | None = None
    redis_url: RedisUrl | None = None
    redis_tls_ca_file: FilePath | None = None
    redis_key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{0,64}$")] = "tollgate:"
    kafka_topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    kafka_partitions: Annotated[int, Field(ge=1, le=1000)] = 12
    kafka_replication: Annotated[int, Field(ge=1, le=9)] = 3
    kafka_min_insync_replicas: Annotated[int, Field(ge=1, le=9)] = 2
    ledger_days: Annotated[int, Field(ge=100, le=10_000)] = 130
    audit_days: Annotated[int, Field(ge=1, le=10_000)] = 400

    accept_bearer: bool = False
    allow_private_upstreams: bool = False
    allow_private_receivers: bool = False
    share_lookups: Share = 0.25

    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] = 8192
    max_body_bytes: Bytes = 16 * 1024 * 1024
    max_buffered_bytes: Bytes = 512 * 1024 * 1024
    max_answer_bytes: Bytes = 256 * 1024 * 1024
    share_bodies: Share = 0.25
    share_answers: Share = 0.25
    share_in_flight: Share = 0.25
    parse_bytes_per_s: Bytes = 8 * 1024 * 1024
    default_max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 16_384
    request_timeout_s: Seconds = 3600
    body_timeout_s: Seconds = 30
    upstream_connect_timeout_s: Seconds = 5
    upstream_first_byte_timeout_s: Seconds = 300
    upstream_idle_timeout_s: Seconds = 120

    openai_base_url: HttpUrl = "https://api.openai.com/v1"
    baseten_model_api_url: HttpUrl = "https://inference.baseten.co/v1"
    baseten_url_template: Annotated[str, Field(pattern=_BASETEN_URL)] = (
        "https://model-{model_id}.api.baseten.co/environments/{environment_name}/sync/v1"
    )
    baseten_model_url_template: Annotated[str, Field(pattern=_BASETEN_URL)] = (
        "https://model-{model_id}.api.baseten.co/environments/{environment_name}"
    )
    baseten_api_key: SecretStr | None = None
    anthropic_base_url: HttpUrl = "https://api.anthropic.com"
    anthropic_max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 16_384
    vertex_base_url: HttpUrl | None = None
    vertex_token_url: HttpUrl = "https://oauth2.googleapis.com/token"

    on_disconnect: OnDisconnect = OnDisconnect.DRAIN
    drain_seconds: Seconds = 30
    drain_max: Annotated[int, Field(ge=0)] = 1000
    bill_interrupted: bool = True
    estimate_image_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 1100
    estimate_media_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 1500

    spool_sync: SpoolSync = SpoolSync.NORMAL
    spool_max_bytes: Bytes = 10 * 1024 * 1024 * 1024

    events_hold_back_s: Annotated[float, Field(ge=0, le=86_400)] = 60

    webhook_batch_size: Annotated[int, Field(ge=1, le=100)] = 100
    webhook_linger_ms: Annotated[int, Field(ge=0, le=60_000)] = 1000
    webhook_retry: Literal["short", "standard"] = "short"
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
        """Take what is given: `load` merges, for the class's own order of sources knows no command line."""
        return (init_settings,)

    @model_validator(mode="after")
    def _replicas_fit(self) -> Self:
        if self.kafka_min_insync_replicas > self.kafka_replication:
            raise ValueError(
                f"{variable('kafka_min_insync_replicas')} is {self.kafka_min_insync_replicas}, which must not exceed "
                f"{variable('kafka_replication')}, {self.kafka_replication}"
            )
        return self

    @model_validator(mode="after")
    def _kafka_security_holds(self) -> Self:
        try:
            self.kafka_security().check()
        except SecurityError as error:
            raise ValueError(f"{PREFIX}KAFKA_{{SECURITY_PROTOCOL,SASL_*,TLS_*}}: {error}") from None
        return self

    def kafka_security(self) -> Security:
        """Return how Kafka's clients connect."""
        tls = Tls(
            self.kafka_tls_ca_file,
            self.kafka_tls_certificate_file,
            self.kafka_tls_key_file,
            _shown(self.kafka_tls_key_password),
            self.kafka_tls_check_hostname,
        )
        if self.kafka_sasl_mechanism is None:
            return Security(self.kafka_security_protocol, tls)
        sasl = Sasl(
            self.kafka_sasl_mechanism,
            self.kafka_sasl_username,
            _shown(self.kafka_sasl_password),
            self.kafka_sasl_token_url,
            self.kafka_sasl_client_id,
            _shown(self.kafka_sasl_client_secret),
            self.kafka_sasl_scope,
        )
        return Security(self.kafka_security_protocol, tls, sasl)


def _shown(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def load(config: Path | None = None, **overrides: Any) -> Settings:
    """Merge file, environment and `overrides` (None: not given), the last one winning. Raise SettingsError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    path = config or _find_file(given.get("data_dir"))
    try:
        return Settings(**((_read_file(path) if path else {}) | _Environment(Settings)() | given))
    except ValidationError as error:
        raise SettingsError(_explain(error, path)) from None


def require(loaded: Settings, names: Iterable[str], who: str) -> None:
    """Raise SettingsError where a setting that `who` cannot do without is not set."""
    missing = [variable(name) for name in names if getattr(loaded, name) is None]
    if missing:
        raise SettingsError(f"{who} needs {', '.join(missing)}")


def warnings(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return one line for each ``TOLLGATE_*`` variable that changes nothing: it names no setting, or was injected."""
    known = [variable(name) for name in Settings.model_fields]
    found = []
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX) or name.startswith(f"{PREFIX}TEST_"):
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            found.append(f"{name} names no setting and is ignored; the nearest name is {near[0]}")
        elif _is_injected(name.removeprefix(PREFIX).lower(), value):
            found.append(
                f"{name}={value} is ignored: Kubernetes sets it for a Service of that name; call the Service something "
                "else, or set enableServiceLinks: false in the pod"
            )
    return found


def _is_injected(name: str, value: Any) -> bool:
    return name in _INJECTED and isinstance(value, str) and _INJECTED_VALUE.match(value) is not None


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
            said = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name} ({variable(name)}): {said}" if name else said)
    return "; ".join(lines)
