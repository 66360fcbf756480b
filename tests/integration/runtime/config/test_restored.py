"""Who follows the configuration says that its database was restored and nobody typed `tollgate restore-done`."""

import pytest

from tests.integration.runtime.config.follower import Follower


async def told(heartbeats: list[int]) -> None:
    """Let a follower hear these heartbeats, one after the other, and a change at the end."""
    follower = Follower(None)
    follower.send(1, "first")
    follower.beat(1)
    async with follower.running():
        for version in heartbeats:
            follower.beat(version)
        follower.send(10, "last")
        await follower.heard.version(10)


@pytest.mark.parametrize("heartbeats", [[3, 3, 4], [9, 3, 9, 3, 9]], ids=["in order", "a late one of an old relay"])
async def test_a_relay_that_does_its_work_is_none_that_was_restored(
    heartbeats: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    await told(heartbeats)
    assert "restored" not in caplog.text


async def test_a_relay_that_goes_on_below_what_is_known_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    await told([9, 3, 3, 3, 4])
    (said,) = [message for message in caplog.messages if "restored" in message]
    assert "holds version 9, and the database is at 3" in said
    assert "type `tollgate restore-done`" in said
