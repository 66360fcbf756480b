"""Alert rules and the dashboard ask for what is exposed, by labels that are there; promtool tries the rules."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.architecture import sources
from tests.support import scraping, services

INFRA = sources.ROOT / "infra"
RULES = yaml.safe_load((INFRA / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((INFRA / "grafana" / "tollgate.json").read_text(encoding="utf-8"))
METRIC = re.compile(r"\b(?:tollgate|process)_\w+")
LABELS = re.compile(r"\{([^}]*)\}|\bby \(([^)]*)\)")
_ALWAYS = {"instance", "job", "le"}


def queries() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


QUERIES = list(queries())


def labels(query: str) -> set[str]:
    """Return the labels that a query names."""
    found: set[str] = set()
    for inside, grouped in LABELS.findall(query):
        found |= set(re.findall(r"(\w+)\s*(?:=|!)", re.sub(r'"[^"]*"', '""', inside)))
        found |= {name.strip() for name in grouped.split(",") if name.strip()}
    return found


def known_labels() -> dict[str, set[str]]:
    """Return each metric's labels, as the documentation lists them; a test compares its names with what is exposed."""
    text = (sources.ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", text, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", given)) for name, given in rows}


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[name for name, _ in QUERIES])
def test_every_query_asks_for_what_is_exposed(where: str, query: str) -> None:
    exposed = known_labels()
    documented = set().union(*scraping.documented().values())
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in METRIC.findall(query)}
    assert names or query.startswith("up{"), where
    assert names <= documented & set(exposed), where
    assert labels(query) <= set().union(_ALWAYS, *(exposed[name] for name in names)), where


def test_what_a_legend_or_a_summary_names_is_there() -> None:
    shown: list[tuple[str, str]] = [(rule["annotations"]["summary"], rule["expr"]) for rule in RULES]
    shown += [(one["legendFormat"], one["expr"]) for panel in DASHBOARD["panels"] for one in panel.get("targets", ())]
    exposed = known_labels()
    for text, query in shown:
        named = set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", text))
        of_query = set().union(
            *(exposed.get(re.sub(r"_(bucket|sum|count)$", "", m), set()) for m in METRIC.findall(query))
        )
        grouped = re.search(r"\bby \(([^)]*)\)", query)
        left = {name.strip() for name in grouped[1].split(",")} if grouped else of_query | _ALWAYS
        assert named <= left, (text, query)


def test_promtool_takes_the_rules_and_they_fire_when_they_should() -> None:
    services.installed("prometheus")
    folder = INFRA / "prometheus"
    for words in (
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
        ["check", "config", "prometheus.yml"],
    ):
        ended = subprocess.run(
            ["promtool", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_rule_says_who_is_told_and_the_operators_page_says_what_to_do() -> None:
    page = (sources.ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "tell"}
        assert f"`{rule['alert']}`" in page


def test_compose_brings_the_rules_and_the_dashboard() -> None:
    compose: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text(encoding="utf-8"))
    mounts = [mount for name in ("prometheus", "grafana") for mount in compose["services"][name]["volumes"]]
    named = {mount.partition(":")[0] for mount in mounts if mount.startswith("./")}
    assert {"./prometheus/alerts.yml", "./grafana/tollgate.json", "./grafana/provider.yml"} <= named
    assert all((INFRA / name).exists() for name in named)
    provider = yaml.safe_load((INFRA / "grafana" / "provider.yml").read_text(encoding="utf-8"))
    (path,) = [one["options"]["path"] for one in provider["providers"]]
    assert any(f":{path}/tollgate.json:" in mount for mount in mounts)
