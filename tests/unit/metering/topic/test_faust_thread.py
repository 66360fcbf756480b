"""The consumer's thread ends quietly, whatever aiokafka raises while it closes: its app was told already."""

import asyncio
import threading

import pytest

from metering.topic import faust_thread


class _Service:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def _start_thread(self) -> None:
        raise self._error


@pytest.mark.parametrize("error", [OSError("the connection is gone"), asyncio.CancelledError()])
def test_no_end_of_the_thread_reaches_the_interpreter(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    uncaught: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    worker = faust_thread._Worker(_Service(error))
    worker.start()
    worker.join(10)
    assert not worker.is_alive()
    assert uncaught == []
    assert worker.is_stopped.is_set()
