"""What the audit log keeps of each thing, to the last member: a sealed secret or a key's digest has no place in it."""

from typing import Any

import pytest

from control.core import audit_view
from control.core.records import ManagementKey, Scope, Shown, StoredApiKey, StoredEndpoint, StoredGroup, StoredSecret
from schemas.api import Region
from schemas.config import (
    EndpointRecord,
    GroupRecord,
    KeyRecord,
    SealedSecret,
    SecretRecord,
    WebhookRecord,
    WorkspaceRecord,
    WorkspaceState,
)
from schemas.limits import LimitEnforcement, LimitType, ModelConfig, UsageLimit, UsageLimitUnit
from schemas.targets import Provider, Target
from tests.unit.control.fakes import NOW

TARGET = Target(provider=Provider.OPENAI, secret_id="s", target_model="m")
LIMIT = UsageLimit(type=LimitType.TOKEN, unit=UsageLimitUnit.DAY, threshold=5)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (
            audit_view.workspace(
                WorkspaceRecord(id="w", name="lab", state=WorkspaceState.SUSPENDED, operator_credential=True)
            ),
            {"name": "lab", "state": "suspended", "operator_credential": True},
        ),
        (
            audit_view.management_key(ManagementKey("tgm_abc", "w", WorkspaceState.ACTIVE, "digest", Scope.READ)),
            {"scope": "read"},
        ),
        *(
            (
                audit_view.webhook(
                    WebhookRecord(
                        workspace_id="w",
                        url="https://hooks.example/in",
                        enabled=enabled,
                        secrets=(SealedSecret(sealed="sealed"),),
                    )
                ),
                {"url": "https://hooks.example/in", "enabled": enabled, "usage_alerts": []},
            )
            for enabled in (True, False)
        ),
        (
            audit_view.secret(StoredSecret(SecretRecord(id="s", workspace_id="w", sealed="sealed"), "upstream", NOW)),
            {"name": "upstream"},
        ),
        (
            audit_view.endpoint(
                StoredEndpoint(
                    EndpointRecord(id="e", workspace_id="w", slug="acme/m", target=TARGET, created_at=NOW),
                    Region.EU,
                    NOW,
                )
            ),
            {
                "slug": "acme/m",
                "region": "EU",
                "targets": [{"provider": "OPENAI", "secret_id": "s", "target_model": "m"}],
                "max_output_tokens": None,
                "upstream_objects": None,
            },
        ),
        (
            audit_view.group(
                StoredGroup(
                    GroupRecord(
                        id="g",
                        workspace_id="w",
                        external_entity_id="customer",
                        parent_group_id="p",
                        ancestor_ids=("p",),
                        limit_enforcement=LimitEnforcement.CASCADING,
                        models=(ModelConfig(slug="acme/m", usage_limits=(LIMIT,)),),
                    ),
                    "name",
                    NOW,
                    NOW,
                )
            ),
            {
                "name": "name",
                "external_entity_id": "customer",
                "parent_group_id": "p",
                "limit_enforcement": "CASCADING",
                "models": [
                    {
                        "slug": "acme/m",
                        "rate_limits": [],
                        "usage_limits": [{"type": "TOKEN", "unit": "DAY", "threshold": 5}],
                    }
                ],
            },
        ),
        (
            audit_view.api_key(
                StoredApiKey(
                    "k", KeyRecord(prefix="sky_abc", workspace_id="w", group_id="g", sha256="digest"), "prod", NOW
                )
            ),
            {"group_id": "g", "name": "prod"},
        ),
    ],
)
def test_what_is_kept_of_each_thing(kept: Shown, expected: dict[str, Any]) -> None:
    assert kept == expected


def test_of_a_change_only_what_differs_is_noted() -> None:
    models = [{"slug": f"acme/{number}", "rate_limits": [], "usage_limits": []} for number in range(1000)]
    changed = [*models[1:999], {**models[999], "rate_limits": [{"threshold": 1}]}, {"slug": "acme/new"}]
    before = {"name": "a", "external_entity_id": "x", "models": models}
    assert audit_view.difference(before, {**before, "name": "b"}) == ({"name": "a"}, {"name": "b"})
    assert audit_view.difference(before, {**before, "models": changed}) == (
        {"models": [models[0], models[999]]},
        {"models": [changed[998], changed[999]]},
    )
    assert audit_view.difference({}, {"public_key": "k"}) == ({}, {"public_key": "k"})
    assert audit_view.difference(before, before) == ({}, {})
