"""GET /v1/models and one of them (contract 3)."""

from schemas.config import ConfigKind
from schemas.limits import ModelConfig
from tests.integration.proxy.gate import Gate
from tests.unit.proxy.kit import NOW, SLUG

LISTED = {"id": SLUG, "object": "model", "created": int(NOW.timestamp()), "owned_by": "lab"}


async def test_the_list_holds_what_the_key_may_call_and_is_there(running: Gate) -> None:
    running.serve("lab/second", "https://up.example/v1")
    running.serve("lab/third", "https://up.example/v1")
    running.allow(ModelConfig(slug="lab/second"), ModelConfig(slug="lab/gone"), ModelConfig(slug=SLUG))
    async with running.client() as client:
        answer = await client.get("/v1/models")
    assert answer.status_code == 200
    assert answer.json() == {"object": "list", "data": [LISTED | {"id": "lab/second"}, LISTED]}


async def test_one_with_its_slash_raw_or_encoded(running: Gate) -> None:
    async with running.client() as client:
        for path in ("/v1/models/lab/model", "/v1/models/lab%2Fmodel", "/v1/models/lab%2fmodel"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (200, LISTED), path


async def test_one_that_is_not_there(running: Gate) -> None:
    async with running.client() as client:
        for name in ("lab/other", "lab", "lab/model/more", "lab%252Fmodel", "%ff%fe", "lab%00model"):
            answer = await client.get(f"/v1/models/{name}")
            assert answer.status_code == 404, name
            assert answer.json()["error"]["code"] == "model_not_found"
            assert len(answer.headers.get_list("x-request-id")) == 1


async def test_every_answer_has_an_id(running: Gate) -> None:
    async with running.client() as client:
        answers = [
            await client.get("/v1/models"),
            await client.get("/v1/models/lab/other"),
            await client.post("/v1/models"),
            await client.get("/v1/chat/completions"),
            await client.get("/v1/models", headers={"authorization": "Api-Key nobody"}),
        ]
    assert [answer.status_code for answer in answers] == [200, 404, 405, 405, 401]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


async def test_other_paths_are_404(running: Gate) -> None:
    async with running.client() as client:
        for path in ("/v1/modelsfoo", "/v1/model", "/v1", "/", "/v1/chat", "/v1/chat/completions/more"):
            assert (await client.get(path)).status_code == 404, path


async def test_models_are_only_read(running: Gate) -> None:
    async with running.client() as client:
        for path in ("/v1/models", "/v1/models/lab/model"):
            answer = await client.post(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
            answer = await client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")


async def test_an_endpoint_that_goes_is_listed_no_more(running: Gate) -> None:
    running.apply(ConfigKind.ENDPOINT, f"e-{SLUG}", None)
    async with running.client() as client:
        assert (await client.get("/v1/models")).json()["data"] == []
        assert (await client.get("/v1/models/lab/model")).status_code == 404


async def test_the_sdk_lists_and_retrieves(running: Gate) -> None:
    async with running.sdk() as sdk:
        assert [model.id async for model in await sdk.models.list()] == [SLUG]
        assert (await sdk.models.retrieve(SLUG)).id == SLUG
