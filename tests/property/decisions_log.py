"""The topic of decisions in memory: compacted, with writers that are paused, and offsets that never come again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.kafka.feed import FeedRecord
from runtime.kafka.reader import LogBounds
from runtime.kafka.writer import UNKNOWN
from schemas.topics import LIMITS_DECISIONS


@dataclass
class Log:
    """One partition of a topic: what is still there of it, and where it ends."""

    records: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    end: int = 0

    def append(self, key: bytes, value: bytes) -> int:
        self.records.append((self.end, key, value))
        self.end += 1
        return self.end - 1

    def compact(self, uncleaned: int) -> None:
        newest = {key: offset for offset, key, _ in self.records}
        self.records = [
            record for record in self.records if record[0] >= self.end - uncleaned or newest[record[1]] == record[0]
        ]


class DecisionsTopic:
    """The decisions as a writer and a reader see them; a writer that is paused writes when it is let go."""

    def __init__(self, logs: Sequence[Log], *, paused: bool = False) -> None:
        self._logs = logs
        self._paused = paused
        self.late: list[tuple[int, bytes, bytes]] = []

    async def partitions(self, _topic: str) -> int:
        return len(self._logs)

    async def write_to(self, topic: str, partition: int, records: Sequence[Any]) -> list[int]:
        assert topic == LIMITS_DECISIONS
        if self._paused:
            self.late += [(partition, key, value) for key, value, _ in records]
            return [UNKNOWN] * len(records)
        return [self._logs[partition].append(key, value) for key, value, _ in records]

    async def write(self, topic: str, records: Sequence[Any]) -> None:
        """Take daily usage, which this test does not look at."""

    async def bounds(self) -> Mapping[int, LogBounds]:
        return {
            lane: LogBounds(log.records[0][0] if log.records else log.end, log.end)
            for lane, log in enumerate(self._logs)
        }

    async def until(self, bounds: Mapping[int, LogBounds]) -> Any:
        for lane, (begin, end) in bounds.items():
            yield [FeedRecord(key, value) for offset, key, value in self._logs[lane].records if begin <= offset < end]
