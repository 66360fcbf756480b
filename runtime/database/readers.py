"""The threads that read the database: each kind of reader has its own, so that no kind holds up another."""

from concurrent.futures import Executor, ThreadPoolExecutor
from enum import Enum


class ReaderKind(Enum):
    """Who reads; the value is how many threads, and connections, that kind has."""

    SIGN_IN = (1, "sign-in")
    """Who calls the management API: one row each."""
    MANAGEMENT = (2, "management")
    """What a lab asks for, long lists among it."""
    WORK = (4, "work")
    """What the process does by itself: the relay, metering, deliveries."""

    @property
    def threads(self) -> int:
        """Return how many read at once."""
        return self.value[0]


AT_ONCE = sum(reader.threads for reader in ReaderKind)


class ReadThreads:
    """The threads of one database."""

    def __init__(self) -> None:
        self._threads = {
            reader: ThreadPoolExecutor(reader.threads, thread_name_prefix=f"db-read-{reader.value[1]}")
            for reader in ReaderKind
        }

    def of(self, reader: ReaderKind) -> Executor:
        """Return the threads of one kind."""
        return self._threads[reader]

    def shutdown(self) -> None:
        """Wait until all have ended what they read."""
        for threads in self._threads.values():
            threads.shutdown()
