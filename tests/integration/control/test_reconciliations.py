"""The reconciliations that the console asks for: one at a time, with what came of it kept, whatever that is."""

from datetime import date

import pytest

from control.core.refusals import ConflictError
from control.reconciliations import ReconcileAnswer, ReconcileRequest, Reconciliations
from control.store.monitoring import reconciliations as store
from control.store.monitoring.reconciliations import StoredReconciliation, Verdict
from runtime import clock
from runtime.database.engines import Database

DAY = date(2025, 3, 14)
ASKED = ReconcileRequest(DAY, ["http://127.0.0.1:8081"])


class Comparer:
    """Stands for what reads the accounts."""

    def __init__(self) -> None:
        self.asked: list[ReconcileRequest] = []
        self.answers: list[ReconcileAnswer | Exception] = [ReconcileAnswer(Verdict.AGREES, "No difference.")]

    async def __call__(self, request: ReconcileRequest) -> ReconcileAnswer:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def newest(database: Database) -> list[StoredReconciliation]:
    return list(database.read_now(lambda connection: store.newest(connection, clock.steady()())))


async def test_one_runs_at_a_time_and_its_answer_is_kept(database: Database) -> None:
    comparer = Comparer()
    ours, of_another_process = (Reconciliations(database, clock.steady(), comparer) for _ in range(2))
    await ours.step()
    assert comparer.asked == []
    await ours.ask(ASKED)
    for both in (ours, of_another_process):
        with pytest.raises(ConflictError, match="under way"):
            await both.ask(ASKED)
    await ours.step()
    await ours.step()
    assert comparer.asked == [ASKED]
    (kept,) = newest(database)
    assert (kept.day, kept.verdict, kept.text) == (DAY, Verdict.AGREES, "No difference.")
    await of_another_process.ask(ASKED)


async def test_one_that_fails_says_so_and_the_next_runs(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    comparer = Comparer()
    comparer.answers.insert(0, ValueError("a fault of ours"))
    runs = Reconciliations(database, clock.steady(), comparer)
    for verdict in (Verdict.NOT_COMPARED, Verdict.AGREES):
        await runs.ask(ASKED)
        await runs.step()
        assert newest(database)[0].verdict is verdict
    assert "a fault of ours" in caplog.text
