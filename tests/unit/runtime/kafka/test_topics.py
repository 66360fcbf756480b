"""The plans of the topics are those of contract 4."""

from runtime.kafka import topics
from runtime.settings import Settings
from schemas import topics as names

DAY_MS = 24 * 3600 * 1000
SETTINGS = Settings(kafka_partitions=7, kafka_replication=3, kafka_min_insync_replicas=2)
PLANS = {plan.name: plan for plan in topics.plans(SETTINGS)}


def test_all_are_planned_with_the_settings_replicas() -> None:
    assert set(PLANS) == {
        names.USAGE_EVENTS,
        names.USAGE_DAILY,
        names.LIMITS_DECISIONS,
        names.LIMITS_IN_FLIGHT,
        names.GATEWAY_CONFIG,
        names.USAGE_UNREADABLE,
        names.GATEWAY_REQUESTS,
        names.GATEWAY_STATUS,
    }
    assert {plan.replication for plan in PLANS.values()} == {3}
    assert {plan.config["min.insync.replicas"] for plan in PLANS.values()} == {"2"}


def test_config_has_one_partition_and_the_others_as_many_as_the_setting_says() -> None:
    assert {name: plan.partitions for name, plan in PLANS.items()} == dict.fromkeys(PLANS, 7) | {
        names.GATEWAY_CONFIG: 1
    }


def test_what_each_keeps_and_for_how_long() -> None:
    kept = {
        name: (set(plan.config["cleanup.policy"].split(",")), plan.config.get("retention.ms"))
        for name, plan in PLANS.items()
    }
    assert kept == {
        names.USAGE_EVENTS: ({"delete"}, str(35 * DAY_MS)),
        names.USAGE_UNREADABLE: ({"delete"}, str(35 * DAY_MS)),
        names.GATEWAY_REQUESTS: ({"delete"}, str(DAY_MS)),
        names.GATEWAY_STATUS: ({"delete"}, str(35 * DAY_MS)),
        names.USAGE_DAILY: ({"compact", "delete"}, str(400 * DAY_MS)),
        names.LIMITS_DECISIONS: ({"compact", "delete"}, str(2 * DAY_MS)),
        names.LIMITS_IN_FLIGHT: ({"delete"}, str(10 * 60 * 1000)),
        names.GATEWAY_CONFIG: ({"compact"}, None),
    }


def test_all_that_is_kept_is_packed_by_the_one_codec_that_every_client_has() -> None:
    packed = {name for name, plan in PLANS.items() if plan.config.get("compression.type") == "gzip"}
    assert packed == set(PLANS) - {names.LIMITS_IN_FLIGHT}


def test_a_tombstone_outlives_the_log_of_changes() -> None:
    """A relay may write again what the log holds: 48 h (counting 8)."""
    assert int(PLANS[names.GATEWAY_CONFIG].config["delete.retention.ms"]) > 2 * DAY_MS
