"""Where a route leads, and with which credential (contract 2.1, 2.4)."""

import json
from dataclasses import replace
from typing import Any

import pytest

from proxy.core import targets
from proxy.core.calls import Dialect, Unserved
from proxy.directory import ConfiguredDirectory
from runtime.vault import Vault
from schemas.config import ConfigKind, ConfigRecord, SecretRecord
from schemas.targets import Provider, VertexConfig
from tests.unit.proxy.directories import (
    OPERATORS,
    PLACES,
    change,
    directory,
    end,
    endpoint,
    group,
    key,
    model,
    secret,
    the_key,
    the_route,
    workspace,
)

BARE: dict[str, Any] = {"base_url": None, "target_model": None}
SERVICE_ACCOUNT = json.dumps(
    {
        "type": "service_account",
        "client_email": "a@p.example",
        "private_key": "-----BEGIN",
        "private_key_id": "k1",
        "token_uri": "https://evil.example/token",
        "universe_domain": "evil.example",
    },
    indent=2,
)
VERTEX: dict[str, Any] = {"vertex_config": VertexConfig(project_id="p", location="global"), "secret_id": "s1"}


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ({"provider": Provider.ANTHROPIC, "base_url": None}, "https://anthropic.example/v1/messages"),
        ({"provider": Provider.OPENAI, "base_url": None}, "https://openai.example/v1/chat/completions"),
        ({"provider": Provider.BASETEN_MODEL_API, "base_url": None}, "https://models.example/v1/chat/completions"),
        (
            {"provider": Provider.BASETEN, "model_id": "abc", **BARE},
            "https://model-abc.example/environments/production/sync/v1/chat/completions",
        ),
        (
            {"provider": Provider.BASETEN, "model_id": "abc", "environment_name": "staging", **BARE},
            "https://model-abc.example/environments/staging/sync/v1/chat/completions",
        ),
    ],
)
def test_each_provider_has_its_place(target: dict[str, Any], url: str) -> None:
    route = the_route(directory(secret(), endpoint(**target)))
    assert (route.url, route.by_operator) == (url, True)
    assert route.stored_metadata_only is (target["provider"] is Provider.OPENAI)


@pytest.mark.parametrize("base_url", ["https://up.example/v1", "https://up.example/v1/", "https://up.example/v1//"])
def test_a_slash_at_the_end_of_a_labs_place_makes_no_difference(base_url: str) -> None:
    assert the_route(directory(endpoint(base_url=base_url))).url == "https://up.example/v1/chat/completions"


def test_a_labs_own_place_is_not_the_operators() -> None:
    assert not the_route(directory(endpoint())).by_operator


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_a_location_has_its_host_row_53(location: str, host: str) -> None:
    target: dict[str, Any] = {"provider": Provider.VERTEX, "base_url": None, "secret_id": "s1"}
    config = VertexConfig(project_id="p-1", location=location)
    route = the_route(directory(secret(SERVICE_ACCOUNT), endpoint(vertex_config=config, **target)))
    path = f"/v1/projects/p-1/locations/{location}/endpoints/openapi/chat/completions"
    assert (route.url, route.by_operator, route.dialect) == (f"https://{host}{path}", True, Dialect.VERTEX)
    places = replace(PLACES, vertex="http://127.0.0.1:9/")
    assert (
        targets.url(endpoint(vertex_config=config, **target).target, places, "/chat/completions")
        == f"http://127.0.0.1:9{path}"
    )


def test_a_key_of_a_service_account_names_no_place_of_its_own_row_54() -> None:
    target: dict[str, Any] = {"provider": Provider.VERTEX, "base_url": None, **VERTEX}
    credential = the_route(directory(secret(SERVICE_ACCOUNT), endpoint(**target))).credential
    assert credential is not None
    assert json.loads(credential) == {
        "type": "service_account",
        "client_email": "a@p.example",
        "private_key": "-----BEGIN",
        "private_key_id": "k1",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "external_account", "credential_source": {"executable": {"command": "/bin/id"}}},
        {"type": "authorized_user"},
        {"type": None},
        {"private_key": None},
        {"client_email": 7},
    ],
)
def test_any_other_credential_is_none_of_vertex_row_54(changes: dict[str, Any]) -> None:
    text = json.dumps(json.loads(SERVICE_ACCOUNT) | changes)
    made = directory(secret(text), endpoint(provider=Provider.VERTEX, base_url=None, **VERTEX))
    assert made.route(the_key(made), "lab/a") is Unserved.CREDENTIAL
    bearer = directory(secret("sk-1"), endpoint(provider=Provider.VERTEX, base_url=None, **VERTEX))
    assert bearer.route(the_key(bearer), "lab/a") is Unserved.CREDENTIAL


def test_a_key_of_a_service_account_goes_into_no_header() -> None:
    made = directory(secret(SERVICE_ACCOUNT), endpoint(secret_id="s1"))
    assert made.route(the_key(made), "lab/a") is Unserved.CREDENTIAL


def test_a_targets_secret_is_its_credential() -> None:
    made = directory(secret(" sk-1\n"), endpoint(secret_id="s1"))
    route = the_route(made)
    assert route.credential == "sk-1"
    assert "sk-1" not in repr(route)
    made.apply(change(50, secret("sk-2")))
    assert the_route(made).credential == "sk-2"
    made.apply(change(49, secret("sk-old")))
    assert the_route(made).credential == "sk-2"
    made.apply(end(51, ConfigKind.SECRET, "s1"))
    assert made.route(the_key(made), "lab/a") is Unserved.CREDENTIAL


class CountingVault(Vault):
    opened = 0

    def open(self, sealed: str, context: str) -> str:
        self.opened += 1
        return super().open(sealed, context)


def test_a_secret_is_opened_once_for_all_its_calls() -> None:
    vault = CountingVault(bytes(32))
    made = ConfiguredDirectory(PLACES, vault)
    house: tuple[ConfigRecord, ...] = (
        workspace(),
        secret(),
        endpoint(secret_id="s1"),
        group("child", model(), tree=("child",)),
        key(),
    )
    for version, record in enumerate(house, 1):
        made.apply(change(version, record))
    for version in range(60, 65):
        the_route(made)
        made.apply(change(2, secret()))  # the feed says things again
        made.apply(change(version, workspace()))
    assert vault.opened == 1


@pytest.mark.parametrize(
    "unusable",
    [
        secret("sk\r\nx: y"),
        secret("schlüssel"),
        secret(" "),
        secret(workspace_id="other"),
        SecretRecord(id="s1", workspace_id="ws", sealed="AAAA"),
        SecretRecord(id="s1", workspace_id="ws", sealed=secret(id_="s2").sealed),
    ],
)
def test_a_secret_that_cannot_be_used_is_no_credential(
    unusable: SecretRecord, caplog: pytest.LogCaptureFixture
) -> None:
    made = directory(unusable, endpoint(secret_id="s1"))
    assert made.route(the_key(made), "lab/a") is Unserved.CREDENTIAL
    assert "sk" not in caplog.text


def test_the_operators_credential_is_for_baseten_targets_of_workspaces_that_may_use_it() -> None:
    baseten = endpoint(provider=Provider.BASETEN, model_id="abc", **BARE)
    allowed = workspace(operator_credential=True)
    assert the_route(directory(baseten)).credential is None
    assert the_route(directory(baseten, allowed)).credential == OPERATORS
    assert the_route(directory(endpoint(), allowed)).credential is None
    model_api = endpoint(provider=Provider.BASETEN_MODEL_API, base_url=None)
    assert the_route(directory(model_api, allowed)).credential is None
    own = endpoint(provider=Provider.BASETEN, model_id="abc", secret_id="s1", **BARE)
    assert the_route(directory(secret(), own, allowed)).credential == "sk-1"
    taken_back = directory(baseten, allowed)
    the_route(taken_back)
    taken_back.apply(change(50, workspace()))
    assert the_route(taken_back).credential is None


def test_what_an_endpoint_says_of_its_model_is_the_routes() -> None:
    plain = the_route(directory())
    assert (plain.max_output_tokens, plain.upstream_objects) == (None, False)
    said = endpoint().model_copy(update={"max_output_tokens": 9, "upstream_objects": True})
    route = the_route(directory(said))
    assert (route.max_output_tokens, route.upstream_objects) == (9, True)
