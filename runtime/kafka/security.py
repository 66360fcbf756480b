"""How a client of Kafka's knows its brokers and says who it is: TLS, client certificates, SASL (docs/operate.md).

Never leaves a certificate unchecked: only the check of its host name can be turned off.
"""

import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class SecurityProtocol(StrEnum):
    """What a broker's listener speaks, in Kafka's own words (its setting `security.protocol`)."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class SaslMechanism(StrEnum):
    """How a client says who it is, in Kafka's own words (its setting `sasl.mechanism`)."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"
    OAUTHBEARER = "OAUTHBEARER"


class SecurityError(ValueError):
    """The settings do not fit each other, or name a file that is not what it must be; one line says which."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How TLS connections are made."""

    ca_file: Path | None = None
    """PEM; None: the system's own authorities."""
    certificate_file: Path | None = None
    """PEM, the client's certificate and what signed it; None: the client shows none."""
    key_file: Path | None = None
    """PEM; None: it lies in `certificate_file`."""
    key_password: str | None = field(default=None, repr=False)
    check_hostname: bool = True


@dataclass(frozen=True, slots=True)
class Sasl:
    """Who the client is: name and password, or for OAUTHBEARER where its tokens come from (RFC 6749 4.4)."""

    mechanism: SaslMechanism
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    scope: str | None = None

    def missing(self) -> list[str]:
        """Return the names of what the mechanism needs and is not given."""
        has_tokens = self.mechanism == SaslMechanism.OAUTHBEARER
        needed = ("token_url", "client_id", "client_secret") if has_tokens else ("username", "password")
        return [name for name in needed if not getattr(self, name)]


@dataclass(frozen=True, slots=True)
class Security:
    """How an installation's clients connect to Kafka; the default is a listener without any."""

    protocol: SecurityProtocol = SecurityProtocol.PLAINTEXT
    tls: Tls = field(default_factory=Tls)
    sasl: Sasl | None = None

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol in (SecurityProtocol.SSL, SecurityProtocol.SASL_SSL)

    @property
    def has_sasl(self) -> bool:
        """Whether the client authenticates itself by SASL."""
        return self.protocol in (SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL)

    def check(self) -> None:
        """Raise SecurityError where a part is missing, has no use, or its files cannot be read."""
        if not self.has_tls and self.tls != Tls():
            raise SecurityError(f"TLS is set up, but the protocol is {self.protocol}: it must be SSL or SASL_SSL")
        if not self.has_sasl and self.sasl is not None:
            raise SecurityError(f"SASL is set up, but the protocol is {self.protocol}: it must be SASL_SSL")
        if self.has_sasl and self.sasl is None:
            raise SecurityError(f"{self.protocol} needs a SASL mechanism: {', '.join(SaslMechanism)}")
        if self.sasl is not None and (missing := self.sasl.missing()):
            raise SecurityError(f"{self.sasl.mechanism} needs {', '.join(missing)} as well")
        if self.has_tls:
            self.tls_context()

    def options(self) -> dict[str, Any]:
        """Return what aiokafka's clients are told of it, except for what brings tokens. Raise SecurityError."""
        given: dict[str, Any] = {"security_protocol": self.protocol.value}
        if self.has_tls:
            given["ssl_context"] = self.tls_context()
        if self.sasl is not None:
            given["sasl_mechanism"] = self.sasl.mechanism.value
            if self.sasl.mechanism != SaslMechanism.OAUTHBEARER:
                given |= {"sasl_plain_username": self.sasl.username, "sasl_plain_password": self.sasl.password}
        return given

    def tls_context(self) -> ssl.SSLContext:
        """Return what TLS connections are made with: TLS 1.2 or newer. Raise SecurityError.

        The files are read at each call, so a client that is made later has renewed ones.
        """
        tls = self.tls
        if tls.certificate_file is None and tls.key_file is not None:
            raise SecurityError("a client's key needs its certificate as well")
        try:
            context = ssl.create_default_context(cafile=tls.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise SecurityError(f"{tls.ca_file} cannot be read as authorities in PEM: {_reason(error)}") from None
        if tls.certificate_file is not None:
            try:  # without a password OpenSSL would ask the terminal for one
                context.load_cert_chain(tls.certificate_file, tls.key_file, password=lambda: tls.key_password or "")
            except (OSError, ValueError) as error:
                files = f"{tls.certificate_file} and {tls.key_file or 'the key in it'}"
                raise SecurityError(f"{files} cannot be used as the client's: {_reason(error)}") from None
        context.check_hostname = tls.check_hostname
        return context


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
