"""A real browser for the tests of pages."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.page.browsing import SECONDS

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: install one or set CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=SECONDS
        )
        yield made
        made.close()
