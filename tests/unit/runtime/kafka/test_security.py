"""What of Kafka's security settings fits, and what is said of what does not."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

from infra.local import certificates
from metering.topic import faust_thread
from runtime import settings
from runtime.kafka import clients
from runtime.kafka.clients import Kafka
from runtime.kafka.security import Sasl, SaslMechanism, Security, SecurityError, SecurityProtocol, Tls
from runtime.kafka.tokens import KafkaTokens
from runtime.settings import Settings

PASSWORD = {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "u", "kafka_sasl_password": "hush"}
TOKENS = {
    "kafka_sasl_mechanism": "OAUTHBEARER",
    "kafka_sasl_token_url": "https://login.lab.example/token",
    "kafka_sasl_client_id": "c",
    "kafka_sasl_client_secret": "hush",
}


def without(given: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in given.items() if key != name}


@pytest.mark.parametrize(
    ("protocol", "given", "said"),
    [
        ("SASL_SSL", {}, "needs a SASL mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER"),
        ("SASL_SSL", without(PASSWORD, "kafka_sasl_password"), "PLAIN needs password as well"),
        ("SASL_SSL", without(TOKENS, "kafka_sasl_client_secret"), "OAUTHBEARER needs client_secret as well"),
        ("PLAINTEXT", PASSWORD, "SASL is set up, but the protocol is PLAINTEXT"),
        ("SSL", PASSWORD, "SASL is set up, but the protocol is SSL"),
        (
            "SASL_PLAINTEXT",
            PASSWORD | {"kafka_tls_check_hostname": False},
            "TLS is set up, but the protocol is SASL_",
        ),
        ("SSL", {"kafka_tls_ca_file": "none.pem"}, "kafka_tls_ca_file (TOLLGATE_KAFKA_TLS_CA_FILE): Path does not"),
        ("SSL", {"kafka_tls_ca_file": "bad.pem"}, "bad.pem cannot be read as authorities in PEM"),
        ("SSL", {"kafka_tls_certificate_file": "bad.pem"}, "bad.pem and the key in it cannot be used as the client's"),
        ("SSL", {"kafka_tls_key_file": "bad.pem"}, "a client's key needs its certificate"),
        ("TLS", {}, "'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'"),
    ],
)
def test_what_does_not_fit_is_refused_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, given: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.pem").write_text("no certificate", encoding="utf-8")
    with pytest.raises(settings.SettingsError) as refusal:
        settings.load(kafka_security_protocol=protocol, **given)
    assert said in str(refusal.value)
    assert "hush" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("given", [PASSWORD, TOKENS])
def test_what_fits_is_taken_and_not_shown(given: dict[str, Any]) -> None:
    loaded = Settings(kafka_bootstrap="b:1", kafka_security_protocol="SASL_SSL", **given)
    where = Kafka.of(loaded)
    assert where.security.protocol == SecurityProtocol.SASL_SSL
    assert where.security.sasl is not None
    assert "hush" in (where.security.sasl.password, where.security.sasl.client_secret)
    assert "hush" not in f"{loaded!r}{where!r}"


def test_turning_the_check_of_the_host_name_off_leaves_the_authority_checked(tmp_path: Path) -> None:
    files = certificates.make(tmp_path)
    checked = Security(SecurityProtocol.SSL, Tls(files.authority)).tls_context()
    less = Security(SecurityProtocol.SSL, Tls(files.authority, check_hostname=False)).tls_context()
    assert (checked.check_hostname, checked.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert (less.check_hostname, less.verify_mode) == (False, ssl.CERT_REQUIRED)
    assert len(checked.get_ca_certs()) == 1, "the system's own authorities are trusted beside the given one"


def test_an_encrypted_key_needs_its_password_and_never_the_terminal(tmp_path: Path) -> None:
    files = certificates.make(tmp_path)
    key = certificates.encrypt(files.client, b"hush")
    tls = Tls(files.authority, files.client, key, "hush")
    assert Security(SecurityProtocol.SSL, tls).tls_context()
    for wrong in (None, "swordfish"):
        with pytest.raises(SecurityError, match="cannot be used as the client's"):
            Security(SecurityProtocol.SSL, Tls(files.authority, files.client, key, wrong)).tls_context()


async def test_faust_gets_the_same_as_every_other_client(tmp_path: Path) -> None:
    files = certificates.make(tmp_path)
    tls = Tls(files.authority, files.client)
    assert faust_thread.credentials(Kafka("b:1")) is None
    only_tls = faust_thread.credentials(Kafka("b:1", "", Security(SecurityProtocol.SSL, tls)))
    assert isinstance(only_tls, SSLCredentials)
    for protocol in (SecurityProtocol.SASL_SSL, SecurityProtocol.SASL_PLAINTEXT):
        security = Security(protocol, sasl=Sasl(SaslMechanism.SCRAM_SHA_512, "u", "hush"))
        login = faust_thread.credentials(Kafka("b:1", "", security))
        assert isinstance(login, SASLCredentials)
        assert (login.protocol.value, login.mechanism.value) == (protocol, "SCRAM-SHA-512")
        assert (login.username, login.password) == ("u", "hush")
        bearer = Sasl(SaslMechanism.OAUTHBEARER, token_url="http://x", client_id="c", client_secret="hush")
        tokens = faust_thread.credentials(Kafka("b:1", "", Security(protocol, sasl=bearer)))
        assert isinstance(tokens, OAuthCredentials)
        assert isinstance(tokens.oauth_cb, KafkaTokens)
        assert tokens.protocol.value == protocol


def test_a_listener_without_security_is_the_default() -> None:
    assert clients.options(Kafka("b:1")) == {"bootstrap_servers": "b:1", "security_protocol": "PLAINTEXT"}
