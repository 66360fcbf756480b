"""The console in a real browser, on a real server: every page accessible, a lab's journeys, also without scripts."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from infra.local import chromium, install
from infra.screenshots import month
from infra.screenshots.__main__ import SeededLab, seeded, sign_in
from tests.support import services

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::ResourceWarning")]
AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
PAGES = (
    "overview",
    "customers",
    "customers/new",
    "models",
    "models/new",
    "events",
    "usage",
    "webhook",
    "webhook/redrive",
    "search?q=nothing",
)


@dataclass
class Visitor:
    """A person at a browser; what their pages complain of is kept."""

    context: BrowserContext
    page: Page = field(init=False)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def violations(self) -> list[str]:
        """Return what axe's rules find on the page as it is."""
        self.page.evaluate(AXE)
        found = self.page.evaluate("async () => (await axe.run()).violations")
        return [f"{one['id']}: {json.dumps([node['html'] for node in one['nodes']])}" for one in found]


@pytest.fixture(scope="module")
def lab() -> Iterator[SeededLab]:
    install.ensure("chromium", install=services.INSTALL in os.environ)
    with seeded(days=1, calls=40) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.browser() as made:
        yield made


@pytest.fixture
def visitor(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    options = getattr(request, "param", {})
    with browser.new_context(locale="en-GB", timezone_id="Asia/Tokyo", **options) as context:
        context.set_default_timeout(60_000)
        made = Visitor(context)
        yield made
        assert made.complaints == []


def every_page(lab: SeededLab, api: httpx.Client) -> list[str]:
    customer = lab.customers[1]
    delivery = api.get("/deliveries").json()["items"][0]["id"]
    endpoint = api.get("/endpoints").json()["items"][0]["id"]
    keys = f"customers/{customer.group_id}/keys"
    prefix = customer.api_key[:16]
    return [
        *PAGES,
        f"customers/{customer.group_id}",
        f"customers/{customer.group_id}/delete",
        f"{keys}/change?prefix={prefix}",
        f"{keys}/revoke?prefix={prefix}",
        f"models/{endpoint}",
        f"models/{endpoint}/delete",
        f"webhook/deliveries/{delivery}",
        f"usage?group={customer.group_id}&by=day,model",
    ]


def management(lab: SeededLab) -> httpx.Client:
    headers = {"Authorization": f"Api-Key {lab.management_key}"}
    return httpx.Client(base_url=f"{lab.url}/v1/gateway", headers=headers, timeout=30)


def test_the_first_pages_have_no_fault(lab: SeededLab, visitor: Visitor) -> None:
    sign_in(visitor.page, lab)
    for page in ("overview", "customers"):
        visitor.page.goto(f"{lab.url}/console/{page}")
        assert visitor.violations() == [], page


@pytest.mark.long
@pytest.mark.parametrize(
    "visitor",
    [
        {"color_scheme": "light", "viewport": {"width": 1600, "height": 900}},
        {"color_scheme": "dark", "viewport": {"width": 360, "height": 700}},
    ],
    indirect=True,
    ids=["light", "dark"],
)
def test_every_page_is_accessible_and_as_wide_as_the_window(lab: SeededLab, visitor: Visitor) -> None:
    with management(lab) as api:
        pages = every_page(lab, api)
    visitor.page.goto(f"{lab.url}/console/sign-in")
    assert visitor.violations() == []
    sign_in(visitor.page, lab)
    for page in pages:
        visitor.page.goto(f"{lab.url}/console/{page}")
        assert visitor.violations() == [], page
        assert visitor.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page


@pytest.mark.long
@pytest.mark.parametrize("visitor", [{}, {"java_script_enabled": False}], indirect=True, ids=["script", "no-script"])
def test_a_lab_makes_a_customer_limits_it_and_hands_out_a_key(
    lab: SeededLab, visitor: Visitor, request: pytest.FixtureRequest
) -> None:
    page, name = visitor.page, f"journey-{request.node.callspec.id}"
    sign_in(page, lab)
    page.get_by_role("link", name="Customers").click()
    page.get_by_role("link", name="New customer").click()
    page.get_by_label("External id").fill(name)
    page.locator("select[name='slug.0']").select_option(month.SMALL)
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    page.get_by_label(f"Threshold of the limit to add for {month.SMALL}").fill("1,000,000")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("cell", name="1,000,000")).to_be_visible()
    page.get_by_role("button", name="Mint a key").click()
    key = page.get_by_label("API key").input_value()
    body = {"model": month.SMALL, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Api-Key {key}"}
    answer = httpx.post(f"{lab.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
    assert answer.status_code == 200
    expect_found(page, answer.headers["x-request-id"])
    page.goto(f"{lab.url}/console/usage?by=customer")
    expect(page.get_by_role("link", name=name)).to_be_visible()


def expect_found(page: Page, request_id: str) -> None:
    """Search until the request's event is counted: that takes a moment, and the page says nothing meanwhile."""
    for _ in range(100):
        page.get_by_label("Find a request").fill(request_id)
        page.get_by_label("Find a request").press("Enter")
        if page.get_by_role("heading", name=f"Request {request_id}").count():
            return
    pytest.fail("the request was not found")


@pytest.mark.long
def test_an_event_arrives_while_one_looks(lab: SeededLab, visitor: Visitor) -> None:
    page, customer = visitor.page, lab.customers[-1]
    sign_in(page, lab)
    page.goto(f"{lab.url}/console/events?customer={customer.external_entity_id}")
    before = page.locator("#events tbody tr").count()
    body = {"model": month.SMALL, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Api-Key {customer.api_key}"}
    assert httpx.post(f"{lab.url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code == 200
    expect(page.locator("#events tbody tr")).to_have_count(before + 1)
    assert httpx.post(f"{lab.url}/v1/chat/completions", json=body | {"model": "no/such"}, headers=headers).is_error
    expect(page.get_by_role("cell", name="not billed")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")


@pytest.mark.long
@pytest.mark.parametrize("visitor", [{}, {"java_script_enabled": False}], indirect=True, ids=["script", "no-script"])
def test_the_webhook_is_tested_and_rotated_and_a_month_saved(lab: SeededLab, visitor: Visitor) -> None:
    page = visitor.page
    sign_in(page, lab)
    page.get_by_role("link", name="Webhook").click()
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_text("answered 200")).to_be_visible()
    page.get_by_role("button", name="Rotate the secret").click()
    assert page.get_by_label("Signing secret").input_value().startswith("whsec_")
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_text("secrets sign.")).to_be_visible()
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_text("answered 200")).to_be_visible()  # the receiver knows the older secret
    page.get_by_role("link", name="Usage", exact=True).click()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download as CSV").click()
    assert saved.value.path().read_text(encoding="utf-8").startswith("customer,model,requests,")


@pytest.mark.long
@pytest.mark.parametrize("visitor", [{}, {"java_script_enabled": False}], indirect=True, ids=["script", "no-script"])
def test_a_model_is_tried_with_a_developers_key(lab: SeededLab, visitor: Visitor) -> None:
    page = visitor.page
    sign_in(page, lab)
    page.get_by_role("link", name="Models").click()
    page.get_by_role("link", name=month.SMALL).click()
    page.get_by_label(re.compile("developer.s key")).fill(lab.customers[0].api_key)
    page.get_by_role("button", name="Call it").click()
    expect(page.get_by_text("chat.completion")).to_be_visible()
    expect(page.get_by_role("link", name="this request")).to_be_visible()


@pytest.mark.long
def test_the_operator_enters_by_a_link_once_and_looks(lab: SeededLab, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(lab.operator_link)
    assert visitor.violations() == []
    page.get_by_role("button", name="Enter as the operator").click()
    expect(page.get_by_role("rowheader", name="Meridian")).to_be_visible()
    page.get_by_role("navigation").get_by_role("link", name="Reconcile").click()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#reconciled pre")).to_contain_text("No difference.", timeout=60_000)
    assert visitor.violations() == []
    for name in ("Workspaces", "Processes", "Settings"):
        page.get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        assert visitor.violations() == []
    page.goto(lab.operator_link)
    page.get_by_role("button", name="Enter as the operator").click()
    expect(page.get_by_text("tollgate console link")).to_be_visible()
    visitor.complaints.clear()  # the browser's own line about the 403
