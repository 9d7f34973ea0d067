"""The HTML page in a browser: opening it, and what is seen there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pagedata
from nox_variants.reports import html

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Dialog, Locator, Page

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
PAGES = {
    "example": lambda: html.page(*pagedata.shown(), title="nox-variants: examples"),
    "hostile": lambda: html.page(*pagedata.hostile(), title=pagedata.HOSTILE[1]),
    "empty": lambda: html.page((), (), title="nothing"),
    "past": lambda: html.page((), pagedata.points(3, 4), title="only history"),
    "alone": lambda: html.page(pagedata.history(1)[0], (), title="no history"),
}


class Opened:
    """Opens pages, and keeps what a quiet page does not do: requests, messages, dialogs."""

    def __init__(self, browser: Browser, files: Callable[[str], str]) -> None:
        self._browser, self._files = browser, files
        self.requests: list[str] = []
        self.noise: list[str] = []

    def __call__(
        self, name: str = "example", fragment: str = "", *, init: str = "", **options: Any
    ) -> Page:
        context = self._browser.new_context(**{"viewport": WIDE, **options})
        context.set_offline(offline=True)
        context.set_default_timeout(60_000)
        if init:
            context.add_init_script(init)
        page = context.new_page()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.noise.append(message.text))
        page.on("pageerror", lambda error: self.noise.append(str(error)))
        page.on("dialog", self._dismiss)
        page.goto(self._files(name) + fragment)
        return page

    def _dismiss(self, dialog: Dialog) -> None:
        self.noise.append(dialog.message)
        dialog.dismiss()


def cells(page: Page) -> int:
    """Return how many cells of the matrix are shown."""
    return page.locator(".cell:visible").count()


def chooser(page: Page, name: str) -> Locator:
    """Return what something is chosen from."""
    return page.get_by_role("combobox", name=name, exact=True)


def rows(page: Page, column: str = "variant") -> list[str]:
    """Return a column of the table, as far as it is shown."""
    heads = page.locator("#list thead th").all_inner_texts()
    at = heads.index(column) + 1
    return page.locator(f"#list tbody tr:visible > :nth-child({at})").all_inner_texts()


def fragment(page: Page) -> str:
    """Return what of the address a link shares."""
    found: str = page.evaluate("location.hash.slice(1)")
    return found


def drawn(page: Page, selector: str) -> list[int]:
    """Return of each canvas how many of its pixels have a colour."""
    found: list[int] = page.eval_on_selector_all(
        selector,
        """all => all.map(canvas => canvas.getContext("2d")
            .getImageData(0, 0, canvas.width, canvas.height).data
            .filter((value, at) => at % 4 === 3 && value > 0).length)""",
    )
    return found
