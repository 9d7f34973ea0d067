"""How the HTML page looks in a real browser: themes, phones, paper, and to who cannot see it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

from browsing import PAGES, PHONE, WIDE, drawn

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from browsing import Opened

pytestmark = pytest.mark.browser


GROUND = "getComputedStyle(document.body).backgroundColor"
DARK, LIGHT = "rgb(13, 17, 23)", "rgb(246, 247, 249)"


def test_theme_is_kept(opened: Opened) -> None:
    """The theme is the system's until one is chosen, which is written down."""
    page = opened(color_scheme="dark")
    before = page.evaluate(GROUND)
    page.locator("#theme").click()

    assert (before, page.evaluate(GROUND)) == (DARK, LIGHT)
    assert page.evaluate("localStorage.getItem('nox-variants-theme')") == "light"


def test_kept_theme_is_used(opened: Opened) -> None:
    """What was written down is the theme from the start."""
    page = opened(color_scheme="dark", init="localStorage.setItem('nox-variants-theme', 'light')")

    assert page.evaluate(GROUND) == LIGHT
    assert page.locator("#theme").inner_text() == "Theme: light"


def test_theme_without_storage(opened: Opened) -> None:
    """Where a browser keeps nothing, the theme can still be changed."""
    page = opened(
        init="Object.defineProperty(window, 'localStorage', {get() { throw new Error('none') }})"
    )
    page.locator("#theme").click()

    assert page.locator("html").get_attribute("data-theme") == "light"


def test_reduced_motion(opened: Opened) -> None:
    """Who asked for less motion gets none."""
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"

    assert opened(reduced_motion="reduce").evaluate(behaviour) == "auto"
    assert opened(reduced_motion="no-preference").evaluate(behaviour) == "smooth"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("fragment", ["", "#v-0"])
def test_phones_need_no_sideways_scrolling(opened: Opened, name: str, fragment: str) -> None:
    """At 360 pixels, only tables scroll sideways, each within its own region."""
    page = opened(name, fragment, viewport=PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")

    widths = page.evaluate(
        """[document.documentElement, ...document.querySelectorAll('dialog[open]')]
            .map(each => each.scrollWidth - each.clientWidth)"""
    )

    assert max(widths) <= 0


@pytest.mark.parametrize("name", ["example", "hostile", "empty"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_accessibility(opened: Opened, name: str, scheme: str, viewport: dict[str, int]) -> None:
    """Axe finds nothing, also with everything unfolded, and in a dialog."""
    page = opened(name, color_scheme=scheme, viewport=viewport)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")

    assert violations(page) == []

    if name != "empty":
        page.locator(".cell").first.click()

        assert violations(page) == []


def violations(page: Page) -> list[str]:
    """Return what axe finds: rule, element, and what is wrong."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html'][:200]}: {node['failureSummary']}"
        for each in found
        for node in each["nodes"]
    ]


def test_accessibility_without_matches(opened: Opened) -> None:
    """Axe finds nothing where the filters leave nothing."""
    assert violations(opened(fragment="#q=nothing+at+all")) == []


def test_print(opened: Opened, artifacts: Path) -> None:
    """Printing gives a document with charts, on white; then the page is as it was."""
    page = opened(color_scheme="dark")
    page.evaluate(
        """() => { window.seen = []; addEventListener('beforeprint', () => window.seen.push(
            document.documentElement.dataset.theme,
            document.querySelectorAll('details.facts[open]').length)) }"""
    )
    made = page.pdf(format="A4", print_background=True)
    (artifacts / "print.pdf").write_bytes(made)

    assert made.startswith(b"%PDF-")
    assert len(made) > 100_000
    assert page.evaluate("window.seen") == ["light", 28]
    assert page.locator("html").get_attribute("data-theme") is None
    assert all(pixels > 500 for pixels in drawn(page, "canvas"))


def test_print_shows_all_and_no_controls(opened: Opened) -> None:
    """On paper there is no control, nothing is cut off, and all facts are there."""
    page = opened(viewport={"width": 718, "height": 1000})
    page.emulate_media(media="print")
    page.locator("details.facts[open]").nth(27).wait_for()

    assert page.locator("button:visible:not(th *), select:visible, input:visible").count() == 0
    assert page.locator("#facts pre:visible").count() > 20
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.evaluate(
        """[...document.querySelectorAll('.scroll')].every(each =>
            getComputedStyle(each).overflowX === 'visible')"""
    )


# --- for people to look at ------------------------------------------------------------------------


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Give the folder for what people are to look at."""
    folder = Path(os.environ.get("VARIANTS_TEST_ARTIFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {}),
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": PHONE}),
        ("without-scripts", {"java_script_enabled": False}),
        ("print", {"viewport": {"width": 718, "height": 1000}}),
    ],
)
def test_screenshots(opened: Opened, artifacts: Path, name: str, options: dict[str, Any]) -> None:
    """Pictures of the page are kept where they are asked for."""
    page = opened(**options)
    if name == "print":
        page.emulate_media(media="print")
    file = artifacts / f"{name}.png"
    page.screenshot(path=file, full_page=True)

    assert file.stat().st_size > 50_000
