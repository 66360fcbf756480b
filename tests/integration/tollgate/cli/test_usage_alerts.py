"""`tollgate workspace set-webhook --usage-alert`: what is asked for, and what other changes keep of it."""

from pathlib import Path

from tests.integration.tollgate.cli.test_workspace import create, data, run, webhook

__all__ = ["data"]


def test_set_webhook_asks_for_usage_alerts_which_other_changes_keep(data: Path) -> None:
    made = create(data)

    def set_(*options: str) -> int:
        return run(data, "set-webhook", "--workspace", "lab", *options).exit_code

    def alerts() -> tuple[tuple[int, ...], bool]:
        record = webhook(data, made["workspace_id"])
        return record.usage_alerts, record.enabled

    assert set_("--disable") == 0
    assert set_("--usage-alert", "100", "--usage-alert", "80") == 0
    assert alerts() == ((80, 100), False), "whether it sends stays"
    assert set_("--url", "https://hooks.example/in") == 0
    assert alerts() == ((80, 100), True)
    assert set_("--usage-alert", "0") == 0
    assert alerts() == ((), True)
    assert set_("--usage-alert", "101") == 2
    assert set_(*(word for share in range(1, 7) for word in ("--usage-alert", str(share)))) == 2
    assert set_() == 2
