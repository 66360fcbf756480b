"""Traces are off unless a collector is named, and what they need is said where it is missing."""

import subprocess
import sys

import pytest

from runtime.settings import SettingsError
from runtime.telemetry import traces

_ROLES = "tollgate.roles.embedded, tollgate.roles.proxy, tollgate.roles.metering, tollgate.roles.webhooks"
_SEEN = f"import sys, {_ROLES}; print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"


def test_off_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in traces.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert traces.opened("proxy") is None


def test_no_role_imports_the_sdk_by_itself() -> None:
    seen = subprocess.run([sys.executable, "-c", _SEEN], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_a_missing_extra_is_said_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "runtime.telemetry.otlp", None)
    with pytest.raises(SettingsError, match=r"tollgate-gateway\[otel\]"):
        traces.opened("proxy")
