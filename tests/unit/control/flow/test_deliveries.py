"""Redeliver and redrive: whose delivery, which window, one entry in the journal."""

from datetime import datetime, timedelta

import pytest

from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.flow import deliveries
from schemas.base import rfc3339
from tests.unit.control.fake_deliveries import Delivery, FakeDeliveries
from tests.unit.control.fakes import NOW, FakeStores


def dead(**owners: str) -> FakeDeliveries:
    """Make deliveries that were given up, the first now and each of the others an hour before the one named before."""
    stored = FakeDeliveries()
    for number, (name, owner) in enumerate(owners.items()):
        stored.kept[name] = Delivery(owner, "dead", NOW - timedelta(hours=number))
    return stored


class GoneMeanwhile(FakeDeliveries):
    """Its deliveries are removed between the look at their owner and the change."""

    def owner(self, delivery_id: str) -> str | None:
        found = super().owner(delivery_id)
        self.kept.pop(delivery_id, None)
        return found


def redriven(
    stored: FakeDeliveries, stores: FakeStores, since: datetime | None, until: datetime | None
) -> deliveries.Redrive:
    before, redrive = None, deliveries.plan("lab", since, until, NOW)
    while redrive != before:
        before, redrive = redrive, deliveries.step(stores.unit("lab"), redrive, stored.redrive)
    return redrive


def redeliver(stored: FakeDeliveries, stores: FakeStores, name: str) -> None:
    deliveries.redeliver(stores.unit("lab"), name, stored.owner(name), stored.redeliver)


def test_redeliver_is_for_the_workspaces_own() -> None:
    stored, stores = dead(mine="lab", theirs="other"), FakeStores()
    redeliver(stored, stores, "mine")
    assert stored.pending == ["mine"]
    assert stores.journal.notes == [("lab", "delivery.redeliver", "mine", None, None)]
    with pytest.raises(ForbiddenError):
        redeliver(stored, stores, "theirs")
    with pytest.raises(NotFoundError):
        redeliver(stored, stores, "none")
    gone = GoneMeanwhile()
    gone.kept |= stored.kept
    with pytest.raises(NotFoundError):
        redeliver(gone, stores, "mine")
    assert len(stores.journal.notes) == 1


def test_a_redrive_goes_in_steps_and_is_noted_once() -> None:
    stored = dead(now="lab", a="lab", theirs="other", b="lab", c="lab", d="lab", e="lab")
    stores = FakeStores()
    assert redriven(stored, stores, None, None).count == 5
    assert stored.pending == ["a", "b", "c", "d", "e"]  # what failed at this moment or later is never part of it
    assert stores.journal.notes == [("lab", "deliveries.redrive", "lab", None, {"from": None, "to": rfc3339(NOW)})]
    assert redriven(stored, stores, None, None).count == 0
    assert len(stores.journal.notes) == 1


def test_a_redrives_window_is_kept_and_ends_now_at_the_latest() -> None:
    stored, stores = dead(now="lab", a="lab", b="lab", c="lab"), FakeStores()
    since, until = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    assert redriven(stored, stores, since, until).count == 1
    assert stored.pending == ["b"]
    assert stores.journal.notes[0][4] == {"from": rfc3339(since), "to": rfc3339(until)}
    assert deliveries.plan("lab", since, NOW + timedelta(days=1), NOW).until == NOW
    with pytest.raises(InvalidError) as refusal:
        deliveries.plan("lab", until, since, NOW)
    assert refusal.value.param == "to"
