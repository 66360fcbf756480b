"""`./run screenshots`: six pages of the console at two widths, into docs/images, from a lab with a month of use."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from infra import demo
from infra.local import chromium, install
from infra.local.process import free_ports
from infra.screenshots import month

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDTHS = {"wide": 1600, "narrow": 360}
PAGES = ("overview", "customers", "customer", "usage", "events", "webhook")
_REFUSED = {"model": "meridian/atlas-700b", "messages": [{"role": "user", "content": "Hello"}]}


@dataclass(frozen=True, slots=True)
class SeededLab:
    """A gateway that runs with a lab and its month."""

    url: str
    data: Path
    management_key: str
    customers: list[month.Customer]
    operator_link: str


def main() -> int:
    """Take the pictures; return the exit code."""
    parser = argparse.ArgumentParser(prog="./run screenshots", description=__doc__)
    parser.add_argument("--to", type=Path, default=IMAGES, help="the folder (default: docs/images)")
    parser.add_argument("--dark", action="store_true", help="as a system that wishes for dark shows them")
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    install.ensure("chromium", install=True)
    with seeded() as lab, chromium.browser() as browser:
        for width in WIDTHS:
            _take(browser, lab, width, given.to, is_dark=given.dark)
    return 0


@contextmanager
def seeded(days: int = month.DAYS, calls: int = month.CALLS_OF_A_DAY) -> Iterator[SeededLab]:
    """Run a gateway with a lab that has so many days behind it, for the length of a `with` block."""
    with tempfile.TemporaryDirectory(prefix="tollgate-month-") as folder, ExitStack() as processes:
        data = Path(folder) / "data"
        made = demo.command(
            "workspace", "create", "--name", "Meridian", "--org-prefix", "meridian", "--data", str(data)
        )
        receiver = demo.start(processes, "webhook", "listen", "--secret", made["webhook_secret"])["url"]
        upstream = demo.start(processes, "mock-upstream", "--tokens", "24")["base_url"]
        demo.command("workspace", "set-webhook", "--workspace", "Meridian", "--url", receiver, "--data", str(data))
        port = str(free_ports(1)[0])  # known before it starts, so that the console can call a model
        url = demo.start(processes, "serve", "--data", str(data), "--port", port, "--ops-port", "0")["url"]
        with httpx.Client(headers={"Authorization": f"Api-Key {made['api_key']}"}, timeout=30) as api:
            api.base_url = httpx.URL(f"{url}/v1/gateway")
            customers = month.onboard(api, upstream)
            month.fill(data, made["workspace_id"], customers, days, calls)
            _call(url, customers)
            demo.until(lambda: bool(api.get("/deliveries?status=delivered").json()["items"]), "the deliveries")
        printed: str = demo.command("console", "link", "--data", str(data))["url"]
        link = url + printed[printed.index("/console/") :]
        yield SeededLab(url, data, made["api_key"], customers, link)


def _call(url: str, customers: list[month.Customer]) -> None:
    """Call as developers do, wrongly now and then."""
    bodies = [_REFUSED | {"model": slug} for slug in (month.SMALL, month.LARGE)] * 6 + [_REFUSED] * 2
    with httpx.Client(timeout=30) as client:
        for index, body in enumerate(bodies):
            key = customers[index % len(customers)].api_key
            client.post(f"{url}/v1/chat/completions", json=body, headers={"Authorization": f"Api-Key {key}"})


def sign_in(page: "Page", lab: SeededLab) -> None:
    """Sign in as the lab."""
    page.goto(f"{lab.url}/console/sign-in")
    page.get_by_label("Management key").fill(lab.management_key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console/overview")


def _take(browser: "Browser", lab: SeededLab, width: str, folder: Path, *, is_dark: bool) -> None:
    context = browser.new_context(
        viewport={"width": WIDTHS[width], "height": 900},
        color_scheme="dark" if is_dark else "light",
        timezone_id="Europe/Berlin",
        locale="en-GB",
    )
    page = context.new_page()
    sign_in(page, lab)
    for name in PAGES:
        address = f"customers/{lab.customers[1].group_id}" if name == "customer" else name
        page.goto(f"{lab.url}/console/{address}")
        page.screenshot(path=folder / f"console-{name}-{width}.png", full_page=width == "wide" and name != "events")
    context.close()


if __name__ == "__main__":
    sys.exit(main())
