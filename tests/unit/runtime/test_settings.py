"""Where settings come from, which of them wins, and what is refused with what is allowed (contract 6)."""

import base64
import os
from pathlib import Path

import pytest

from runtime import settings
from runtime.settings import OnDisconnect, Settings, SettingsError

DOCUMENTED = Path(__file__).parents[3] / "docs" / "settings.md"
KEY = base64.b64encode(bytes(32)).decode()


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(name)


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("tollgate.toml"), "port = 1", "ops_port = 2", 'host = "127.0.0.2"')
    monkeypatch.setenv("TOLLGATE_PORT", "11")
    monkeypatch.setenv("TOLLGATE_OPS_PORT", "12")
    loaded = settings.load(port=21, ops_port=None)
    assert (loaded.port, loaded.ops_port, loaded.host, loaded.ops_host) == (21, 12, "127.0.0.2", "127.0.0.1")


def test_the_file_is_the_one_that_is_named_else_the_working_directorys_else_the_data_directorys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = write(tmp_path / "etc" / "other.toml", "port = 1")
    here = write(tmp_path / "tollgate.toml", "port = 2")
    write(tmp_path / "data" / "tollgate.toml", "port = 3")
    write(tmp_path / "elsewhere" / "tollgate.toml", "port = 4")
    assert settings.load(named).port == 1
    assert settings.load().port == 2
    here.unlink()
    assert settings.load().port == 3
    assert settings.load(data_dir=Path("elsewhere")).port == 4
    monkeypatch.setenv("TOLLGATE_DATA_DIR", "elsewhere")
    assert settings.load().port == 4
    assert settings.load(data_dir=Path("data")).port == 3
    assert settings.load(data_dir=Path("nowhere")).port == 8080
    with pytest.raises(SettingsError, match=r"nothing\.toml: cannot be read"):
        settings.load(Path("nothing.toml"))


def test_an_unknown_name_in_the_file_is_refused_with_the_nearest() -> None:
    write(Path("tollgate.toml"), "prot = 1")
    with pytest.raises(SettingsError, match=r"tollgate\.toml: prot is not a setting; the nearest name is port"):
        settings.load()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "66000", "less than or equal to 65535"),
        ("ON_DISCONNECT", "leave", "'drain' or 'cancel'"),
        ("SPOOL_SYNC", "no", "'normal' or 'full'"),
        ("ACCEPT_BEARER", "perhaps", "boolean"),
        ("WEBHOOK_BATCH_SIZE", "101", "less than or equal to 100"),
        ("OPENAI_BASE_URL", "ftp://x", "https?://"),
        ("MASTER_KEY", "hush", "32 bytes, base64"),
        ("DATABASE_URL", "mysql://u:hush@h/n", "must be postgresql://USER:PASSWORD@HOST:PORT/NAME"),
        ("KAFKA_BOOTSTRAP", "not a broker at all", "must be host:port"),
        ("KAFKA_BOOTSTRAP", "kafka", "must be host:port"),
        ("KAFKA_BOOTSTRAP", "kafka:0", "must be host:port"),
        ("KAFKA_BOOTSTRAP", "kafka:65536", "must be host:port"),
        ("KAFKA_BOOTSTRAP", "a:1,", "must be host:port"),
        ("KAFKA_BOOTSTRAP", "http://a:1", "must be host:port"),
        ("KAFKA_REPLICATION", "1", "TOLLGATE_KAFKA_MIN_INSYNC_REPLICAS is 2"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(f"TOLLGATE_{name}", value)
    with pytest.raises(SettingsError) as refusal:
        settings.load()
    said = str(refusal.value)
    assert f"TOLLGATE_{name}" in said
    assert allowed in said
    assert "hush" not in said
    assert "\n" not in said


def test_right_values_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ON_DISCONNECT": "cancel",
        "MASTER_KEY": KEY,
        "DATABASE_URL": "postgresql://u:hush@h:5432/n",
        "KAFKA_BOOTSTRAP": "kafka-1.lab.example:9092,10.0.0.1:9093,[::1]:9094",
        "KAFKA_REPLICATION": "1",
        "KAFKA_MIN_INSYNC_REPLICAS": "1",
    }.items():
        monkeypatch.setenv(f"TOLLGATE_{name}", value)
    loaded = settings.load(port=0)  # given on the command line: everything is judged once more
    assert (loaded.on_disconnect, loaded.kafka_replication) == (OnDisconnect.CANCEL, 1)
    assert "hush" not in repr(loaded)
    assert KEY not in repr(loaded)


@pytest.mark.parametrize("name", ["PORT", "OPS_PORT"])
@pytest.mark.parametrize("value", ["tcp://10.0.0.1:8080", "udp://10.0.0.1:53", "TCP://10.0.0.1:8080"])
def test_a_port_that_kubernetes_injects_is_ignored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    write(Path("tollgate.toml"), f"{name.lower()} = 9")
    monkeypatch.setenv(f"TOLLGATE_{name}", value)
    monkeypatch.setenv("TOLLGATE_SERVICE_HOST", "10.0.0.1")
    assert getattr(settings.load(), name.lower()) == 9
    injected, unknown = settings.warnings()
    assert f"TOLLGATE_{name}={value} is ignored: Kubernetes" in injected
    assert "TOLLGATE_SERVICE_HOST names no setting" in unknown


@pytest.mark.parametrize("given", ['port = "tcp://10.0.0.1:8080"', 'host = "tcp://10.0.0.1"\nport = "http://a:1"'])
def test_what_only_looks_injected_is_refused(given: str) -> None:
    write(Path("tollgate.toml"), given)
    with pytest.raises(SettingsError, match="TOLLGATE_PORT"):
        settings.load()


def test_variables_that_name_no_setting_are_warned_of() -> None:
    found = settings.warnings({"TOLLGATE_PROT": "1", "TOLLGATE_PORT": "1", "TOLLGATE_TEST_ANY": "1", "PORT": "1"})
    assert found == ["TOLLGATE_PROT names no setting and is ignored; the nearest name is TOLLGATE_PORT"]


@pytest.mark.parametrize(
    "url", ["http://h", "redis://", "redis://:hush@h/x", "redis://:hush@h:99999", "redis://h?db=1"]
)
def test_a_redis_url_that_cannot_be_used_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(SettingsError, match="redis_url") as caught:
        settings.load(redis_url=url)
    assert "hush" not in str(caught.value)


def test_what_is_needed_is_named() -> None:
    loaded = Settings(kafka_bootstrap="a:1")
    settings.require(loaded, ["kafka_bootstrap"], "it")
    with pytest.raises(SettingsError, match="it needs TOLLGATE_DATABASE_URL, TOLLGATE_MASTER_KEY"):
        settings.require(loaded, ["kafka_bootstrap", "database_url", "master_key"], "it")


def test_every_setting_is_documented() -> None:
    text = DOCUMENTED.read_text(encoding="utf-8")
    assert [name for name in map(settings.variable, Settings.model_fields) if f"`{name}`" not in text] == []
