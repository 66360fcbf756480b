"""The files beside the templates are what they say they are, and no template opens a hole."""

import hashlib
import re
from pathlib import Path

import pytest

from control.console import guard, pages
from tests.architecture.sources import ROOT

CONSOLE = ROOT / "control" / "console"
TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))
VENDORED = {
    "htmx-2.0.11.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    "htmx-2.0.11.LICENSE": "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
}


@pytest.mark.parametrize("name", VENDORED)
def test_what_is_not_ours_is_unchanged(name: str) -> None:
    assert hashlib.sha256((CONSOLE / "static" / name).read_bytes()).hexdigest() == VENDORED[name]


def test_nothing_else_is_not_ours() -> None:
    own = {"console.css", "console.js", "mark.svg"}
    assert {file.name for file in (CONSOLE / "static").iterdir()} == own | set(VENDORED)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_marks_nothing_as_safe_and_needs_no_loose_policy(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe|Markup|autoescape", text)
    assert not re.search(
        r"\sstyle=|<style|\son\w+=|hx-on|javascript:|hx-vals=.js|https?://(?!\w+\.example|models\.)", text
    )
    assert not re.search(r"<script(?! src=\"\{\{ asset)", text)


def test_every_form_that_posts_has_the_token() -> None:
    forms = [
        form for path in TEMPLATES for form in re.findall(r'<form method="post".*?</form>', path.read_text(), re.DOTALL)
    ]
    assert len(forms) > 10
    assert [form for form in forms if "form_token" not in form and "parts.token(person)" not in form] == []


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/console", "/console"),
        ("/console/events?customer=a%26b", "/console/events?customer=a%26b"),
        ("/consoles", "/console"),
        ("//evil.example/console/", "/console"),
        ("/console/\\evil", "/console"),
        ("/console/\n", "/console"),
        ("/console/é", "/console"),
        (None, "/console"),
    ],
)
def test_after_sign_in_only_the_console_is_led_to(path: str | None, own: str) -> None:
    assert guard.own_path(path) == own


def test_addresses_quote_what_they_are_made_of() -> None:
    assert pages.address("customers", "a/b?c", q="x&y=z", cursor=None) == "/console/customers/a%2Fb%3Fc?q=x%26y%3Dz"


@pytest.mark.parametrize(
    ("used", "threshold", "share"),
    [(None, 10, 0), (0, 10, 0), (999, 1000, 99), (1000, 1000, 100), (5, 1, 100), (0, 0, 100)],
)
def test_a_share_never_says_full_before_it_is(used: int | None, threshold: int, share: int) -> None:
    assert pages.share(used, threshold) == share
