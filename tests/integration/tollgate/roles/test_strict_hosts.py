"""With strict hosts nothing is served under a name that is no lab's, except for the checks."""

import httpx
import pytest

from tests.support import processes


@pytest.mark.slow
def test_unknown_hosts_are_misdirected(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("strict")
    data = ("--data", str(folder / "data"))
    made = processes.answer("workspace", "create", "--name", "lab", "--org-prefix", "lab", *data)
    processes.answer("workspace", "add-host", "--workspace", "lab", "--host", "api.lab.example", *data)
    serve = ("serve", *data, "--port", "0", "--ops-port", "0")
    with processes.server(folder / "serve.log", *serve, strict_hosts="true", public_metrics="true") as gateway:

        def under(host: str, method: str, path: str) -> int:
            sent = {"authorization": f"Api-Key {made['api_key']}", "host": host}
            return httpx.request(method, f"{gateway.announced['url']}{path}", headers=sent, timeout=10).status_code

        groups, completions = ("GET", "/v1/gateway/groups"), ("POST", "/v1/chat/completions")
        models, schema, metrics = ("GET", "/v1/models"), ("GET", "/schema"), ("GET", "/metrics")
        for asked in (groups, completions, models, schema, metrics):
            assert under("127.0.0.1", *asked) == under("x.example", *asked) == 421, asked
        assert under("x.example", "GET", "/healthz") == under("x.example", "GET", "/readyz") == 200
        assert under("api.lab.example", *groups) == 200
        assert under("api.lab.example", *completions) == under("api.lab.example", *models) == 401  # no developer's key
        assert under("api.lab.example", *schema) == under("api.lab.example", *metrics) == 404
