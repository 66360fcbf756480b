"""The published JSON Schemas are what the contracts generate."""

from schemas import publish
from tests.architecture import sources

FOLDER = sources.ROOT / "schemas" / "json"


def test_published_schemas_equal_the_contracts() -> None:
    published = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert published == publish.render(), "type: tollgate schemas export schemas/json"
