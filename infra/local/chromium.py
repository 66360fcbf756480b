"""A Chromium without a window, Debian's own, driven by playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROGRAM = "chromium"


@contextmanager
def browser() -> Iterator["Browser"]:
    """Run one for the length of a `with` block. Its sandbox is off, which root needs, as root needs."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of those who test and take pictures alone

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=shutil.which(PROGRAM, path="/usr/bin"), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield made
        finally:
            made.close()
