"""What an attacker tries at the console: another lab's things, hostile texts, forged requests, frames, redirects."""

import re
from html.parser import HTMLParser

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from control.console import guard, pages
from control.trial_call import TrialAnswer, TrialCall
from runtime.database.engines import Database
from tests.integration.control import furnished, helpers
from tests.integration.control.console.people import Person, said
from tests.integration.control.helpers import Lab

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "</title><svg onload=alert(1)>",
    "&lt;b&gt; &#34; %3Cscript%3E",
)


class _Tags(HTMLParser):
    """Collects what of a page could run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own_script = tag == "script" and (dict(attrs).get("src") or "").startswith("/console/static/")
        if tag in {"script", "iframe", "object", "embed", "style", "base"} and not own_script:
            self.found.append(tag)
        for name, value in attrs:
            runs = name.startswith(("on", "hx-on")) or name in {"style", "srcdoc"}
            if runs or (name in {"href", "src", "action"} and not (value or "").startswith(("/", "#"))):
                self.found.append(f"{tag} {name}={value}")


def runnable(answer: httpx.Response) -> list[str]:
    tags = _Tags()
    tags.feed(answer.text)
    return tags.found


def handlers(app: Litestar) -> list[tuple[str, str, bool]]:
    """Return method, path and whether a session is needed, of everything the console serves."""
    routes = [route for route in app.routes if isinstance(route, HTTPRoute) and route.path.startswith("/console")]
    return [
        (method, route.path_format, not handler.opt.get("open"))
        for route in routes
        for handler in route.route_handlers
        for method in sorted({"GET", "POST"} & {str(one) for one in handler.http_methods})
    ]


def filled(path: str, names: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: names.get(match.group(1), "nothing"), path)


@pytest.fixture
async def theirs(database: Database, other: Lab) -> dict[str, str]:
    """One of everything, of another lab; return what names it in a path."""
    await other.endpoint("globex/very-secret-model")
    group = await other.made_group("very-secret-customer", {"slug": "globex/very-secret-model"})
    secret = await other.secret("very-secret-name", "v")
    (endpoint,) = (await other.client.get("/v1/gateway/endpoints")).json()["items"]
    furnished._count(database, other.id)
    furnished._deliver(database, other.id)
    return {
        "group_id": group["id"],
        "endpoint_id": endpoint["id"],
        "secret_id": secret,
        "delivery_id": furnished.DELIVERY,
        "request_id": furnished.REQUEST,
        "name": "console.css",
    }


async def test_another_labs_things_are_neither_shown_nor_changed(
    signed_in: Person, app: Litestar, other: Lab, theirs: dict[str, str]
) -> None:
    own = [(method, path) for method, path, closed in handlers(app) if closed and "{" in path]
    assert len(own) > 12
    for method, path in own:
        address = filled(path, theirs) + ("?prefix=x" if "/keys/" in path else "")
        answer = await (signed_in.get(address) if method == "GET" else signed_in.post(address, {"slug": "acme/x"}))
        said_no = answer.status_code in {403, 404} or (answer.status_code == 400 and method == "POST")
        assert said_no, (method, path, answer.status_code)
        assert "very-secret" not in answer.text, (method, path)
    assert len((await other.client.get("/v1/gateway/groups")).json()["items"]) == 1
    assert len((await other.client.get("/v1/gateway/endpoints")).json()["items"]) == 1
    assert len((await other.client.get("/v1/secrets")).json()["items"]) == 1


async def test_lists_and_searches_hold_the_own_things_alone(signed_in: Person, theirs: dict[str, str]) -> None:
    for address in (
        "/console/customers",
        "/console/customers?q=very",
        "/console/models",
        "/console/webhook",
        "/console/events?from=2020-01-01T00:00",
        f"/console/customers/new?parent={theirs['group_id']}",
        "/console/overview",
        f"/console/usage?group={theirs['group_id']}",
        f"/console/usage/csv?group={theirs['group_id']}",
        "/console/usage?month=2025-03",
        "/console/usage/csv?month=2025-03",
    ):
        answer = await signed_in.get(address)
        assert "very-secret" not in answer.text, address
        assert furnished.DELIVERY not in answer.text, address
        assert furnished.SLUG not in answer.text, address


async def test_a_search_leads_to_the_own_things_alone(signed_in: Person, theirs: dict[str, str]) -> None:
    names = [theirs[name] for name in ("group_id", "endpoint_id", "delivery_id", "request_id")]
    for text in ("very-secret-customer", "very", "globex/very-secret-model", *names):
        answer = await signed_in.client.get("/console/search", params={"q": text})
        assert answer.status_code == 200, text
        assert f"Nothing is named {text} " in said(answer)


async def test_every_form_needs_the_sessions_token(signed_in: Person, app: Litestar) -> None:
    posts = [path for method, path, _ in handlers(app) if method == "POST" and "/operator" not in path]
    assert len(posts) > 12
    for path in posts:
        for token in ("", "wrong"):
            answer = await signed_in.client.post(filled(path, {}), data={"form_token": token})
            assert answer.status_code == 403, path
        unread = await signed_in.client.post(filled(path, {}), json={"form_token": signed_in.form_token})
        assert unread.status_code == 415, path


@pytest.mark.parametrize(
    "header", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}]
)
async def test_other_sites_post_nothing_even_with_the_token(signed_in: Person, header: dict[str, str]) -> None:
    answer = await signed_in.post("/console/models/secrets", {"name": "n", "value": "v"}, **header)
    assert answer.status_code == 403
    assert "another site" in said(answer)


async def test_a_token_of_another_session_is_refused(signed_in: Person, app: Litestar, other: Lab) -> None:
    second = Person(app)
    async with second.client:
        await second.sign_in(other.api_key)
        second.form_token = signed_in.form_token
        assert (await second.post("/console/models/secrets", {"name": "n", "value": "v"})).status_code == 403


async def test_a_read_key_looks_and_changes_nothing(app: Litestar, database: Database, lab: Lab) -> None:
    reader = Person(app)
    async with reader.client:
        await reader.sign_in(helpers.add_read_key(database, lab.id))
        assert "read only" in said(await reader.get("/console/customers"))
        for method, path, closed in handlers(app):
            if method == "POST" and closed and not path.endswith("/sign-out") and "/operator" not in path:
                answer = await reader.post(filled(path, {}))
                assert answer.status_code == 403, path
                assert "may only look" in said(answer)


async def test_hostile_texts_are_shown_as_texts(signed_in: Person, lab: Lab) -> None:
    for index, text in enumerate(HOSTILE):
        await _show_as_text(signed_in, lab, text, f"acme/m{index}")


async def _show_as_text(signed_in: Person, lab: Lab, text: str, slug: str) -> None:
    await lab.endpoint(slug, target_model=text)
    await lab.secret(text, "v")
    body = {"metadata": {"external_entity_id": text, "name": text}, "models": [{"slug": slug}]}
    made = await lab.client.post("/v1/gateway/groups", json=body)
    group = made.json()["id"]
    await lab.client.post(f"/v1/gateway/groups/{group}/api_keys", json={"name": text})
    (endpoint,) = (await lab.client.get(f"/v1/gateway/endpoints?slug={slug}")).json()["items"]
    shown = 0
    for address in (
        "/console/customers",
        f"/console/customers/{group}",
        f"/console/customers/{group}/delete",
        f"/console/customers/new?parent={group}",
        "/console/models",
        f"/console/models/{endpoint['id']}",
        "/console/models/new",
        f"/console/customers?{httpx.QueryParams({'q': text})}",
        f"/console/events?{httpx.QueryParams({'customer': text, 'key': text})}",
        f"/console/search?{httpx.QueryParams({'q': 'no ' + text})}",
        f"/console/usage?group={group}",
    ):
        answer = await signed_in.get(address)
        assert answer.status_code == 200, address
        assert runnable(answer) == [], address
        shown += text in said_whole(answer)
    assert shown >= 8
    named = await signed_in.get(f"/console/search?{httpx.QueryParams({'q': text})}")
    assert named.headers["location"] == f"/console/customers/{group}"
    minted = await signed_in.post(f"/console/customers/{group}/keys", {"name": text})
    assert runnable(minted) == []
    refused = await signed_in.post("/console/models/new", {"slug": text, "target_model": text, "base_url": text})
    assert refused.status_code == 400
    assert runnable(refused) == []


@pytest.mark.parametrize("text", HOSTILE)
async def test_what_a_trial_is_answered_is_shown_as_text(
    signed_in: Person, lab: Lab, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    async def make(_: TrialCall, key: str, slug: str, prompt: str) -> TrialAnswer:
        assert (key, slug, prompt) == ("sky_pasted", "acme/m", text)
        return TrialAnswer(200, (("x-request-id", text), ("x-other", text)), text, 7)

    monkeypatch.setattr(TrialCall, "make", make)
    made = await lab.endpoint("acme/m")
    answer = await signed_in.post(f"/console/models/{made['id']}/try", {"key": "sky_pasted", "prompt": text})
    assert answer.status_code == 200
    assert runnable(answer) == []
    assert text in said(answer)
    assert "sky_pasted" not in answer.text


async def test_sign_in_leads_nowhere_else(person: Person, lab: Lab) -> None:
    for path in (
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/console//../..//evil.example\\",
        "/consoleevil",
        "javascript:alert(1)",
        "/console/\r\nset-cookie: a=b",
        "/v1/gateway/groups",
        "",
    ):
        answer = await person.sign_in(lab.api_key, path)
        assert answer.status_code == 303, path
        location = answer.headers["location"]
        assert location == "/console" or location.startswith(("/console/", "/console?")), path
        assert httpx.URL("https://gateway.test").join(location).host == "gateway.test", path
        assert "set-cookie: a" not in str(answer.headers), path


async def test_every_answer_forbids_frames_and_foreign_scripts(signed_in: Person) -> None:
    for address in (
        "/console",
        "/console/customers",
        "/console/no-such-page",
        "/console/sign-in",
        "/console/link",
        "/console/static/console.css",
        "/console/static/no-such-file",
    ):
        answer = await signed_in.get(address)
        policy = answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "same-origin"  # under no-referrer browsers send `Origin: null`
        assert "unsafe" not in policy, address
        assert "frame-ancestors 'none'" in policy, address
        assert {name: answer.headers[name] for name in pages.HEADERS} == pages.HEADERS, address


async def test_pages_with_a_secret_are_kept_nowhere(signed_in: Person, lab: Lab) -> None:
    await lab.endpoint("acme/m")
    group = await lab.made_group("cust", {"slug": "acme/m"})
    for path in (f"/console/customers/{group['id']}/keys", "/console/webhook/rotate"):
        answer = await signed_in.post(path, {"overlap_hours": "0"})
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"


async def test_odd_requests_are_refused_with_a_page(signed_in: Person) -> None:
    for address, status in (
        ("/console/events?from=yesterday", 400),
        ("/console/events?cursor=x", 400),
        ("/console/customers?cursor=x", 400),
        ("/console/webhook?status=odd", 400),
        ("/console/usage?month=2026-13", 400),
        ("/console/usage?month=2026-01-01", 400),
        ("/console/usage?month=0001-01", 400),
        ("/console/usage?month=9999-12", 400),
        ("/console/usage?by=odd", 400),
        ("/console/usage?cursor=x", 400),
        ("/console/requests/odd", 400),
        ("/console/events/%00", 400),
        ("/console/nothing/here", 404),
    ):
        answer = await signed_in.get(address)
        assert answer.status_code == status, address
        assert answer.headers["content-type"].startswith("text/html"), address


async def test_a_token_appears_in_no_other_answer(signed_in: Person) -> None:
    token = str(signed_in.client.cookies.get(guard.COOKIE))
    for page in ("customers", "models", "events", "webhook"):
        answer = await signed_in.get(f"/console/{page}")
        assert token not in answer.text + str(answer.headers)


def said_whole(answer: httpx.Response) -> str:
    """Return a page's texts and the values of its fields, as they are read."""
    texts: list[str] = []

    class Texts(HTMLParser):
        def handle_data(self, data: str) -> None:
            texts.append(data)

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            texts.extend(value for _, value in attrs if value)

    Texts().feed(answer.text)
    return "\n".join(texts)
