import pytest

from domain.sealing import secret_context
from runtime.database.engines import Database
from schemas.config import ConfigKind, SecretRecord, WebhookRecord
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab

PATH = "/v1/secrets"
ENDPOINTS = "/v1/gateway/endpoints"


async def test_a_secret_is_made_replaced_and_listed_without_its_value(lab: Lab, database: Database) -> None:
    made = (await lab.client.post(PATH, json={"name": "openai", "value": "sk-first"})).json()
    assert set(made) == {"id", "name", "created_at"}
    assert made["name"] == "openai"
    assert (await lab.client.post(PATH, json={"name": "openai", "value": "sk-second"})).json() == made
    page = (await lab.client.get(PATH)).json()
    assert page == {"items": [made], "pagination": {"has_more": False, "cursor": None}}
    first, second = [change.record for change in helpers.changes(database) if change.kind is ConfigKind.SECRET]
    for record, value in ((first, "sk-first"), (second, "sk-second")):
        assert isinstance(record, SecretRecord)
        assert "sk-" not in repr(record)
        assert helpers.VAULT.open(record.sealed, secret_context(lab.id, made["id"])) == value


async def test_no_value_is_kept_in_the_clear(lab: Lab, database: Database) -> None:
    await lab.secret("openai", "sk-not-in-any-table")
    with database.engine.connect() as connection:
        for table in ("secrets", "config_change", "audit_log"):
            assert "sk-not" not in repr(connection.exec_driver_sql(f"SELECT * FROM {table}").all())


async def test_the_audit_log_holds_no_sealed_secret(lab: Lab, database: Database) -> None:
    """Whoever reads the log needs no more than the master key to open one."""
    onboarded = await lab.secret("openai", "sk-first")
    await lab.secret("openai", "sk-second")
    rotated = await lab.client.post("/v1/gateway/billing_webhook/rotate_secret", json={"overlap_seconds": 60})
    assert rotated.status_code == 200, rotated.text
    assert (await lab.client.delete(f"{PATH}/{onboarded}")).status_code == 200

    records = [change.record for change in helpers.changes(database)]
    sealed = [record.sealed for record in records if isinstance(record, SecretRecord)]
    sealed += [one.sealed for record in records if isinstance(record, WebhookRecord) for one in record.secrets]
    noted = repr(helpers.audited(database))
    assert len(set(sealed)) == 4
    assert all(action in noted for action in ("secret.create", "secret.replace", "secret.delete", "rotate_secret"))
    assert [one for one in sealed if one in noted] == []


async def test_a_secret_in_use_cannot_be_deleted(lab: Lab) -> None:
    secret = await lab.secret("openai", "sk-1")
    endpoint = await lab.endpoint("acme/m", secret_id=secret)
    refused = await lab.client.delete(f"{PATH}/{secret}")
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "secret_in_use"
    target = {"provider": "BASETEN", "model_id": "abc"}
    assert (await lab.client.patch(f"{ENDPOINTS}/{endpoint['id']}", json={"targets": [target]})).status_code == 200
    assert (await lab.client.delete(f"{PATH}/{secret}")).json() == {"id": secret, "name": "openai"}
    assert (await lab.client.delete(f"{PATH}/{secret}")).status_code == 404
    assert (await lab.client.get(PATH)).json()["items"] == []


async def test_secrets_stay_in_their_workspace(lab: Lab, other: Lab) -> None:
    theirs = await other.secret("openai", "sk-theirs")
    assert (await lab.client.delete(f"{PATH}/{theirs}")).status_code == 403
    assert (await lab.client.get(PATH)).json()["items"] == []
    answer = await lab.client.post(ENDPOINTS, json=helpers.endpoint_body("acme/m", secret_id=theirs))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "targets[0].secret_id"
    assert await lab.secret("openai", "sk-ours") != theirs


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "", "value": "v"}, "name"),
        ({"name": "n" * 256, "value": "v"}, "name"),
        ({"name": "n", "value": ""}, "value"),
        ({"name": "n", "value": "v" * (16 * 1024 + 1)}, "value"),
        ({"name": "n"}, "value"),
        ({"name": "n", "value": 1}, "value"),
        ({"name": "n", "value": "v", "id": "mine"}, "id"),
    ],
)
async def test_a_wrong_body_is_refused_by_its_field(lab: Lab, body: dict[str, object], param: str) -> None:
    answer = await lab.client.post(PATH, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert "v" * 100 not in answer.text


async def test_pages_of_secrets(lab: Lab) -> None:
    made = [await lab.secret(f"s{number}", "v") for number in range(5)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await lab.client.get(PATH, params=query)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["pagination"]["cursor"]
    assert sorted(seen) == sorted(made)
    assert len(seen) == len(made)
