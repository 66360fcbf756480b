"""What goes wrong while a group gives out its partitions is seen: aiokafka only logs it."""

import asyncio

import pytest
from aiokafka import TopicPartition

from runtime.kafka import feed
from schemas import topics
from webhooks.topic.consumer import _Session
from webhooks.topic.partition import TopicReader


class Consumer:
    """Refuses one partition."""

    def __init__(self, refuses: int) -> None:
        self._refuses = refuses

    def seek(self, place: TopicPartition, offset: int) -> None:
        if place.partition == self._refuses:
            raise ValueError("not this one")

    def pause(self, place: TopicPartition) -> None:
        """Do so."""


async def follow(reader: TopicReader) -> None:
    await asyncio.Event().wait()


async def assigned(refuses: int) -> _Session:
    session = _Session(Consumer(refuses), follow, feed.SkippedRecords(topics.USAGE_EVENTS))
    await session.on_partitions_assigned({TopicPartition(topics.USAGE_EVENTS, number) for number in range(3)})
    return session


async def test_who_cannot_follow_has_not_joined_and_fails() -> None:
    session = await assigned(refuses=1)
    assert not session.joined
    with pytest.raises(ValueError, match="not this one"):
        await session.failed(0)
    await session.end()


async def test_who_follows_all_has_joined() -> None:
    session = await assigned(refuses=3)
    assert session.joined
    await session.failed(0)
    assert len(session.readers) == 3
    await session.end()
