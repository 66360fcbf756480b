"""What `./run simulate` says follows from its formulas, and docs/scale.md says the same (docs/scale.md)."""

import re
from pathlib import Path

import pytest

from infra.simulate import measure, walls
from infra.simulate.overshoot import Race
from infra.simulate.telling import Lane
from infra.simulate.walls import POINTS, Constants, Point

STATED = Constants(
    request_us=290,
    decision_us=3.0,
    event_us=42.9,
    counter_us=84.6,
    decision_bytes=227,
    event_bytes=607,
    ledger_bytes=508.3,
)
"""What docs/scale.md was written with."""

PAGE = Path("docs/scale.md").read_text(encoding="utf-8")


def test_the_walls_are_no_nearer_than_the_page_says() -> None:
    rows = re.findall(r"^\| (.+?)(?: \(.*?\))? \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)
    stated = {what: [float(value.replace(",", "")) for value in values] for what, *values in rows}
    found = [walls.walls(point, STATED) for point in POINTS]
    assert stated.keys() == found[0].keys()
    for what, values in stated.items():
        assert values == pytest.approx([each[what] for each in found], rel=0.01), what


def test_a_decision_costs_a_proxy_the_same_however_many_proxies_there_are() -> None:
    few, many = (Point("", 20_000, proxies, 10_000) for proxies in (10, 3200))
    assert walls.told(few) == walls.told(many)
    assert walls.walls(few, STATED) == walls.walls(many, STATED)


def test_no_more_is_named_than_there_are_events_nor_oftener_than_a_turn() -> None:
    assert walls.named(Point("", 10, 1, 1_000_000)) == pytest.approx(10, rel=0.01)
    assert walls.named(Point("", 1e9, 1, 100)) == pytest.approx(100 / walls.TURN_S)
    assert walls.named(Point("", 1000, 1, 1)) == pytest.approx(1 / walls.TURN_S)
    assert walls.told(Point("", 1000, 1, 1)) == pytest.approx(1 / walls.TELL_S)


def test_a_counter_in_use_is_told_once_in_half_a_minute_far_from_its_limits() -> None:
    assert Lane(groups=1000, threshold=10**6).run(rate=2000, seconds=60) <= 20


def test_costs_are_measured_and_what_they_are_of_is_checked(tmp_path: Path) -> None:
    found = measure.constants(tmp_path, 290)
    assert found.request_us == 290
    assert found.decision_us > 0
    assert found.event_us > 0
    assert 200 < found.decision_bytes < 450, "what must be reached at any number of proxies"
    assert 400 < found.event_bytes < found.ledger_bytes * 2


@pytest.mark.parametrize("proxies", [1, 4])
def test_a_limit_is_passed_by_no_more_than_the_contract_says(proxies: int) -> None:
    most = (1 - 1 / proxies) * 100 * (2 + Race.FEEDBACK_S)
    assert 0 <= Race(proxies, tells=False).run(100, 2) <= most
    assert 0 <= Race(proxies, tells=True).run(100, 2) <= 15
