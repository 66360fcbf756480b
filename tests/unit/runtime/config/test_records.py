import json
from datetime import UTC, datetime

import pytest

from runtime.config import log as config_log
from runtime.config import records as config_records
from runtime.config.newer import LeftOutError
from runtime.config.records import UnknownKindError
from runtime.kafka.feed import FeedRecord
from runtime.kafka.writer import KafkaRecord
from schemas.config import (
    RECORD_OF,
    ConfigChange,
    ConfigKind,
    ConfigRecord,
    EndpointRecord,
    GroupRecord,
    KeyRecord,
    PriceRecord,
    SealedSecret,
    SecretRecord,
    WebhookRecord,
    WorkspaceRecord,
    WorkspaceState,
)
from schemas.limits import LimitEnforcement, ModelConfig
from schemas.money import Price
from schemas.targets import Target

AT = datetime(2026, 1, 1, tzinfo=UTC)
RECORDS: dict[ConfigKind, ConfigRecord] = {
    ConfigKind.WORKSPACE: WorkspaceRecord(id="w", name="Ü", state=WorkspaceState.ACTIVE, operator_credential=False),
    ConfigKind.ENDPOINT: EndpointRecord(
        id="e",
        workspace_id="w",
        slug="a/b",
        target=Target.model_validate({"provider": "OPENAI_COMPATIBLE", "base_url": "https://up.example/v1"}),
        created_at=AT,
    ),
    ConfigKind.GROUP: GroupRecord(
        id="g",
        workspace_id="w",
        external_entity_id="customer",
        parent_group_id=None,
        ancestor_ids=(),
        limit_enforcement=LimitEnforcement.CASCADING,
        models=(
            ModelConfig.model_validate(
                {"slug": "a/b", "usage_limits": [{"type": "TOKEN", "unit": "DAY", "threshold": 5}]}
            ),
        ),
    ),
    ConfigKind.KEY: KeyRecord(prefix="sky_0123456789ab", workspace_id="w", group_id="g", sha256="ab" * 32),
    ConfigKind.SECRET: SecretRecord(id="s", workspace_id="w", sealed="..."),
    ConfigKind.WEBHOOK: WebhookRecord(
        workspace_id="w", url="https://lab.example", enabled=True, secrets=(SealedSecret(sealed="...", expires_at=AT),)
    ),
    ConfigKind.PRICE: PriceRecord(
        workspace_id="w",
        price=Price.model_validate(
            {"slug": "a/b", "from": "2026-01-01", "currency": "EUR"}
            | dict.fromkeys(("input", "cached_input", "output", "request"), "0.5")
        ),
    ),
}


class Skipped:
    """What could not be read."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def __call__(self, record: FeedRecord, error: Exception) -> None:
        self.errors.append(error)


def decode(*records: KafkaRecord) -> tuple[list[ConfigChange], int, list[Exception]]:
    skipped = Skipped()
    given = [FeedRecord(*record) for record in records]
    changes, newest = config_records.decode(given, config_records.EVERY_KIND, skipped)
    return changes, newest, skipped.errors


def test_every_kind_has_its_record() -> None:
    assert set(RECORD_OF) == set(ConfigKind)


@pytest.mark.parametrize("kind", ConfigKind)
def test_a_change_comes_back_as_the_contract_reads_it(kind: ConfigKind) -> None:
    change = ConfigChange(version=7, kind=kind, id="x", record=RECORDS[kind])
    record = config_records.of(change, AT)
    assert record.key == f"{kind.value}/x".encode()
    assert record.value is not None
    plain = ConfigChange.model_validate_json(record.value)
    (decoded,), newest, errors = decode(record)
    assert type(decoded.record) is type(plain.record) is RECORD_OF[kind]
    assert decoded.model_dump() == plain.model_dump() == change.model_dump()
    assert (newest, errors) == (7, [])
    assert dict(record.headers)["ce_id"] == f"{kind.value}/x/7".encode()


@pytest.mark.parametrize("kind", ConfigKind)
def test_narrowing_a_kind_refuses_what_the_contract_refuses(kind: ConfigKind) -> None:
    body = config_records.of(ConfigChange(version=7, kind=kind, id="x", record=RECORDS[kind]), AT).value
    for name in json.loads(body or b"")["record"]:
        broken = json.loads(body or b"")
        broken["record"][name] = {"no": "such"}
        with pytest.raises(ValueError, match="validation error"):
            ConfigChange.model_validate(broken)
        with pytest.raises(ValueError, match="validation error"):
            config_log.change_of(kind).model_validate(broken)


def test_an_end_has_no_value_and_its_version_in_the_headers() -> None:
    record = config_records.encode(9, "group", "g", None, AT)
    assert record.value is None
    (change,), newest, _ = decode(record)
    assert change == ConfigChange(version=9, kind=ConfigKind.GROUP, id="g", record=None, at=AT)
    assert newest == 9


def test_a_heartbeat_is_no_change_and_says_the_version() -> None:
    assert decode(config_records.heartbeat(12, AT)) == ([], 12, [])


def test_what_the_reader_does_not_ask_for_is_not_even_looked_at() -> None:
    broken = KafkaRecord(b"group/g", b"not JSON")
    skipped = Skipped()
    assert config_records.decode([FeedRecord(*broken)], {ConfigKind.KEY}, skipped) == ([], 0)
    assert skipped.errors == []


def test_a_kind_that_only_a_newer_version_has_is_told() -> None:
    unknown = config_records.encode(3, "quota", "q", {"some": "thing"}, AT)
    known = config_records.encode(4, "key", "sky_0123456789ab", None, AT)
    skipped = Skipped()
    given = [FeedRecord(*record) for record in (unknown, known)]
    changes, newest = config_records.decode(given, {ConfigKind.KEY}, skipped)
    assert ([change.version for change in changes], newest) == ([4], 4)
    assert [type(error) for error in skipped.errors] == [UnknownKindError]


@pytest.mark.parametrize(
    "record",
    [
        KafkaRecord(b"group/g", b"not JSON"),
        KafkaRecord(b"group/g", b"\xff"),
        KafkaRecord(b"group/g", b'{"version": 1, "kind": "group", "id": "g", "record": {}}'),
        KafkaRecord(b"group/g", None),
        KafkaRecord(b"group/g", None, (("version", b"x"), ("id", b"g"))),
        KafkaRecord(b"group/g", None, (("version", b"1"), ("id", b"\xff"))),
        KafkaRecord(b"heartbeat", None),
        KafkaRecord(b"heartbeat", b"[]"),
        KafkaRecord(b"heartbeat", b"{}"),
        KafkaRecord(b"heartbeat", b'{"version":1e999}'),
        KafkaRecord(b"heartbeat", b'{"version":99999999999999999999}'),
        KafkaRecord(b"heartbeat", b"[" * 100_000),
        KafkaRecord(b"group/g", None, (("version", b"1"), ("id", None))),  # type: ignore[arg-type]  # a header may be null
    ],
)
def test_a_record_that_cannot_be_read_is_skipped_and_the_others_are_not(record: KafkaRecord) -> None:
    good = config_records.encode(2, "group", "other", None, AT)
    changes, newest, errors = decode(record, good)
    assert [change.id for change in changes] == ["other"]
    assert newest == 2
    assert len(errors) == 1


KNOWN_LIMIT = {"type": "TOKEN", "unit": "DAY", "threshold": 5}


@pytest.mark.parametrize(
    ("model", "rates", "usages"),
    [
        ({"usage_limits": [{"type": "NEWER", "unit": "DAY", "threshold": 1}, KNOWN_LIMIT]}, 0, 1),
        ({"usage_limits": [KNOWN_LIMIT, {"type": "TOKEN", "unit": "YEAR", "threshold": 1}]}, 0, 1),
        ({"usage_limits": [KNOWN_LIMIT | {"soft": True}, KNOWN_LIMIT | {"unit": "MONTH"}]}, 0, 1),
        (
            {
                "rate_limits": [
                    {"type": "A", "unit": "SECOND", "threshold": 1},
                    {"type": "REQUEST", "unit": "SECOND", "threshold": 1},
                    {"type": "B", "unit": "C", "threshold": "D"},
                ],
                "usage_limits": [KNOWN_LIMIT],
            },
            1,
            1,
        ),
        ({"burst_limits": [{"type": "TOKEN"}], "usage_limits": [KNOWN_LIMIT]}, 0, 1),
    ],
)
def test_a_limit_that_is_not_known_here_is_left_out_and_the_rest_of_its_group_holds(
    model: dict[str, object], rates: int, usages: int
) -> None:
    state = RECORDS[ConfigKind.GROUP].model_dump(mode="json", by_alias=True)
    state["models"] = [{"slug": "a/other"}, {"slug": "a/b"} | model]
    (change,), newest, errors = decode(config_records.encode(4, "group", "g", state, AT))
    assert isinstance(change.record, GroupRecord)
    other, own = change.record.models
    assert (other.slug, own.slug, newest) == ("a/other", "a/b", 4)
    assert (len(own.rate_limits), len(own.usage_limits)) == (rates, usages)
    (told,) = errors
    assert isinstance(told, LeftOutError)
    assert "g: record.models.1." in str(told)


def test_fields_that_a_newer_version_adds_to_a_record_are_ignored() -> None:
    for kind, known in RECORDS.items():
        state = known.model_dump(mode="json", by_alias=True) | {"newer": {"a": 1}}
        (change,), _, errors = decode(config_records.encode(4, kind.value, "x", state, AT))
        assert (change.record, errors) == (known, [])
