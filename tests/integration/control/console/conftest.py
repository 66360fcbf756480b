from collections.abc import AsyncIterator

import pytest
from litestar import Litestar

from runtime.database.engines import Database
from tests.integration.control.console import people
from tests.integration.control.console.people import Person
from tests.integration.control.helpers import Lab


@pytest.fixture
def app(database: Database) -> Litestar:
    return people.application(database)


@pytest.fixture
async def person(app: Litestar) -> AsyncIterator[Person]:
    made = Person(app)
    async with made.client:
        yield made


@pytest.fixture
async def signed_in(person: Person, lab: Lab) -> Person:
    answer = await person.sign_in(lab.api_key)
    assert answer.status_code == 303, answer.text
    return person
