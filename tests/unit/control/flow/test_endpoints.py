import json
from typing import Any

import pytest
from pydantic import ValidationError

from control.core import bodies
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.flow import endpoints, secrets
from runtime.vault import Vault
from schemas.api import CreateEndpoint, CreateSecret, UpdateEndpoint
from tests.unit.control.fakes import FakeStores

SLUG = "acme/m"
PUBLISHED = {"id", "slug", "region", "targets", "created_at", "updated_at"}
OPENAI_COMPATIBLE = {"provider": "OPENAI_COMPATIBLE", "base_url": "https://up.example/v1/", "target_model": "m"}
VERTEX = {"project_id": "p", "location": "global"}


class Office(FakeStores):
    def __init__(self) -> None:
        super().__init__()
        for prefix, owner in (("acme", "w"), ("globex", "other"), ("more", "w")):
            self.workspaces.add_prefix(owner, prefix)
        self.own, self.others = self.secret("w"), self.secret("other")
        self.journal.notes.clear()

    def secret(self, workspace_id: str) -> str:
        body = CreateSecret(name="upstream", value="v")
        return secrets.save(self.unit(workspace_id), Vault(bytes(32)), body).record.id

    def create(self, target: dict[str, Any] | None = None, slug: str = SLUG) -> str:
        body = CreateEndpoint.model_validate({"slug": slug, "targets": [target or OPENAI_COMPATIBLE]})
        return endpoints.create(self.unit(), body, allow_private=False).record.id

    def update(self, endpoint_id: str, **body: Any) -> None:
        endpoints.update(self.unit(), endpoint_id, UpdateEndpoint.model_validate(body), allow_private=False)


def test_an_endpoint_is_kept_with_the_fields_that_were_set() -> None:
    office = Office()
    made = office.create(OPENAI_COMPATIBLE | {"secret_id": None})
    endpoint = endpoints.get(office.unit(), made)
    assert endpoint.record.target.model_fields_set == {"provider", "base_url", "target_model"}
    assert endpoint.record.target.base_url == "https://up.example/v1/"
    with pytest.raises(ForbiddenError):
        endpoints.get(office.unit("other"), endpoint.record.id)
    with pytest.raises(NotFoundError):
        endpoints.get(office.unit(), "nothing")


def targets(secret_id: str) -> list[dict[str, Any]]:
    external = {"secret_id": secret_id, "target_model": "m"}
    return [
        {"provider": "BASETEN", "model_id": "abc"},
        {"provider": "BASETEN", "model_id": "abc", "environment_name": "staging", **external},
        {"provider": "BASETEN_MODEL_API", "target_model": "m"},
        {"provider": "BASETEN_MODEL_API", **external},
        {"provider": "OPENAI", **external},
        {"provider": "ANTHROPIC", **external},
        {"provider": "VERTEX", "vertex_config": VERTEX, **external},
        {"provider": "OPENAI_COMPATIBLE", "base_url": "https://up.example/v1", **external},
    ]


@pytest.mark.parametrize("at", range(8))
def test_each_provider_keeps_just_what_was_set(at: int) -> None:
    office = Office()
    target = targets(office.own)[at]
    kept = office.endpoints.kept[office.create(target)]
    assert kept.record.target.model_dump(mode="json", exclude_unset=True) == target


REQUIRED = {
    "BASETEN": {"model_id"},
    "BASETEN_MODEL_API": {"target_model"},
    "OPENAI": {"secret_id", "target_model"},
    "ANTHROPIC": {"secret_id", "target_model"},
    "VERTEX": {"vertex_config", "secret_id", "target_model"},
    "OPENAI_COMPATIBLE": {"base_url", "target_model"},
}
FOREIGN = {
    "BASETEN": {"base_url", "vertex_config"},
    "BASETEN_MODEL_API": {"base_url", "model_id", "environment_name", "vertex_config"},
    "OPENAI": {"base_url", "model_id", "environment_name", "vertex_config"},
    "ANTHROPIC": {"base_url", "model_id", "environment_name", "vertex_config"},
    "VERTEX": {"base_url", "model_id", "environment_name"},
    "OPENAI_COMPATIBLE": {"model_id", "environment_name", "vertex_config"},
}


def full(office: Office) -> dict[str, Any]:
    return {
        "secret_id": office.own,
        "target_model": "m",
        "base_url": "https://up.example/v1",
        "model_id": "abc",
        "environment_name": "staging",
        "vertex_config": VERTEX,
    }


@pytest.mark.parametrize(("provider", "field"), [(name, each) for name in REQUIRED for each in sorted(REQUIRED[name])])
def test_what_a_provider_needs_is_required(provider: str, field: str) -> None:
    office = Office()
    given = {name: value for name, value in full(office).items() if name in REQUIRED[provider] - {field}}
    with pytest.raises(InvalidError) as refusal:
        office.create({"provider": provider, **given})
    assert refusal.value.param == f"targets[0].{field}"
    assert not office.endpoints.kept


@pytest.mark.parametrize(("provider", "field"), [("OPENAI", "secret_id"), ("OPENAI_COMPATIBLE", "base_url")])
def test_what_a_provider_needs_is_not_there_when_it_is_empty(provider: str, field: str) -> None:
    office = Office()
    given = {name: value for name, value in full(office).items() if name in REQUIRED[provider]} | {field: ""}
    with pytest.raises(InvalidError, match=rf"^targets\[0\]\.{field}: required for {provider}$"):
        office.create({"provider": provider, **given})


@pytest.mark.parametrize(("provider", "field"), [(name, each) for name in FOREIGN for each in sorted(FOREIGN[name])])
def test_what_does_not_belong_to_a_provider_is_refused(provider: str, field: str) -> None:
    office = Office()
    given = {name: value for name, value in full(office).items() if name in REQUIRED[provider] | {field}}
    with pytest.raises(InvalidError) as refusal:
        office.create({"provider": provider, **given})
    assert refusal.value.param == f"targets[0].{field}"


@pytest.mark.parametrize(
    ("target", "param"),
    [
        ({"base_url": None}, "targets[0].base_url"),
        ({"base_url": "///"}, "targets[0].base_url"),
        ({"base_url": "https://10.0.0.1"}, "targets[0].base_url"),
        ({"target_model": None}, "targets[0].target_model"),
        ({"target_model": "  "}, "targets[0].target_model"),
        ({"secret_id": "nothing"}, "targets[0].secret_id"),
    ],
)
def test_a_wrong_target_is_refused_by_its_field(target: dict[str, Any], param: str) -> None:
    office = Office()
    with pytest.raises(InvalidError) as refusal:
        office.create(OPENAI_COMPATIBLE | target)
    assert refusal.value.param == param
    assert not office.endpoints.kept


def test_another_workspaces_secret_is_answered_as_an_unknown_one() -> None:
    office = Office()
    messages = set()
    for secret_id in (office.others, "nothing"):
        with pytest.raises(InvalidError) as refusal:
            office.create(OPENAI_COMPATIBLE | {"secret_id": secret_id})
        messages.add(refusal.value.message)
    assert len(messages) == 1


def test_a_slug_needs_its_prefix_and_is_unique() -> None:
    office = Office()
    with pytest.raises(InvalidError) as refusal:
        office.create(slug="globex/m")
    assert refusal.value.code == "org_prefix"
    office.create()
    with pytest.raises(InvalidError) as refusal:
        office.create()
    assert refusal.value.code == "slug_taken"


def test_a_change_of_slug_or_target() -> None:
    office = Office()
    made = office.create()
    office.update(made, slug="more/other")
    assert office.endpoints.kept[made].record.slug == "more/other"
    assert office.endpoints.kept[made].record.target.base_url == "https://up.example/v1/"
    office.update(made, slug="more/other", targets=[{"provider": "BASETEN", "model_id": "abc"}])
    kept = office.endpoints.kept[made].record.target
    assert kept.model_dump(exclude_unset=True) == {"provider": "BASETEN", "model_id": "abc"}
    office.create(slug=SLUG)
    for slug, code in ((SLUG, "slug_taken"), ("globex/m", "org_prefix")):
        with pytest.raises(InvalidError) as refusal:
            office.update(made, slug=slug)
        assert refusal.value.code == code
    with pytest.raises(InvalidError, match="at least one"):
        office.update(made, slug=None)
    assert office.journal.actions == ["endpoint.create", "endpoint.update", "endpoint.update", "endpoint.create"]
    _, _, _, before, after = office.journal.notes[1]
    assert before is not None
    assert after is not None
    assert (before["slug"], after["slug"]) == (SLUG, "more/other")


def test_a_deleted_endpoint_frees_its_slug() -> None:
    office = Office()
    made = office.create()
    gone = endpoints.delete(office.unit(), made)
    assert (gone.id, gone.slug) == (made, SLUG)
    office.create()
    with pytest.raises(NotFoundError):
        endpoints.delete(office.unit(), made)


def test_what_a_model_answers_at_most_and_whether_objects_may_be_named_are_kept_changed_and_taken_away() -> None:
    office = Office()
    whole = {"slug": SLUG, "targets": [OPENAI_COMPATIBLE], "max_output_tokens": 8192, "upstream_objects": True}
    made = endpoints.create(office.unit(), CreateEndpoint.model_validate(whole), allow_private=False)
    assert (made.record.max_output_tokens, made.record.upstream_objects) == (8192, True)
    office.update(made.record.id, upstream_objects=False)
    office.update(made.record.id, slug="acme/n")
    changed = endpoints.get(office.unit(), made.record.id).record
    assert (changed.max_output_tokens, changed.upstream_objects) == (8192, False)
    office.update(made.record.id, max_output_tokens=None, upstream_objects=None)
    assert bodies.endpoint(endpoints.get(office.unit(), made.record.id)).model_fields_set == PUBLISHED


def test_an_endpoint_that_says_nothing_more_is_shown_as_published() -> None:
    office = Office()
    assert bodies.endpoint(endpoints.get(office.unit(), office.create())).model_fields_set == PUBLISHED
    with pytest.raises(InvalidError, match="max_output_tokens, upstream_objects: at least one"):
        office.update(office.create(slug="acme/n"), updated_at="2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_output_tokens": 0},
        {"max_output_tokens": 1_000_001},
        {"max_output_tokens": True},
        {"max_output_tokens": "5"},
        {"max_output_tokens": 1.5},
        {"upstream_objects": 1},
        {"upstream_objects": "true"},
    ],
)
def test_what_they_may_not_be(wrong: dict[str, Any]) -> None:
    for contract, body in ((CreateEndpoint, {"slug": SLUG, "targets": [OPENAI_COMPATIBLE]}), (UpdateEndpoint, {})):
        with pytest.raises(ValidationError):
            contract.model_validate_json(json.dumps(body | wrong))
