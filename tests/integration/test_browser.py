"""The HTML page in a real browser: offline, by mouse and keyboard, with and without scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import pagedata
from browsing import PAGES, cells, chooser, drawn, fragment, rows

if TYPE_CHECKING:
    from browsing import Opened

pytestmark = pytest.mark.browser

HELLO = "#program=hello-c"


@pytest.mark.parametrize("name", PAGES)
def test_opens_quietly(opened: Opened, name: str) -> None:
    """Every page opens offline from a file, asks for nothing else, and reports no error."""
    page = opened(name)
    page.wait_for_load_state("networkidle")

    assert opened.requests == [page.url]
    assert page.locator("h1").is_visible()


# --- filters --------------------------------------------------------------------------------------


def test_filters_change_what_is_shown(opened: Opened) -> None:
    """A choice reduces matrix, table and charts, and is in the address."""
    page = opened()
    everything = cells(page)
    chooser(page, "Program").select_option("hello-c")
    chooser(page, "Link mode").select_option("musl")

    assert (everything, cells(page)) == (28, 4)
    assert fragment(page) == "program=hello-c&link=musl"
    assert page.locator("#found").inner_text() == "4 of 28 variants"
    assert all(each.startswith("hello-c(") and ",musl" in each for each in rows(page))
    assert page.locator(".program:visible").count() == 1
    assert page.locator(".program:visible thead th:visible").all_inner_texts() == [
        "run image",
        "musl\nin gcc",
    ]
    assert page.locator(".sizes:visible").count() == 1
    assert "static" not in f"{page.locator('.sizes:visible canvas').get_attribute('aria-label')}"


def test_search(opened: Opened) -> None:
    """Words are looked for in names, causes and sentences; what is not found is said."""
    page = opened()
    search = page.get_by_label("Search")
    search.press_sequentially("RUST panicked")

    assert rows(page) == ["resolver-rust(alpine,dynamic)"]
    assert fragment(page) == "q=RUST+panicked"

    search.fill("no such thing")

    assert (cells(page), rows(page)) == (0, [])
    assert page.locator("#matrix .nothing").is_visible()

    page.get_by_role("button", name="Clear filters").click()

    assert (cells(page), fragment(page)) == (28, "")


def test_address_opens_filtered(opened: Opened) -> None:
    """A shared link shows what its sender saw."""
    page = opened(fragment="#run=scratch&outcome=bad&sort=-content")

    assert rows(page) == ["web-go(scratch,dynamic)", "resolver-rust(scratch,dynamic)"]
    assert chooser(page, "Run image").input_value() == "scratch"
    assert chooser(page, "Outcome").input_value() == "bad"


def test_unknown_filters_are_ignored(opened: Opened) -> None:
    """A link to what is no more shows everything."""
    page = opened(fragment="#program=gone&link=%22%3E&variant=gone&history=gone&sort=gone")

    assert cells(page) == 28
    assert page.locator("#dialog").is_hidden()


def test_back_and_forward(opened: Opened) -> None:
    """The browser's buttons go through what was chosen."""
    page = opened()
    chooser(page, "Program").select_option("web-go")
    page.locator(".count.failed").click()

    assert (rows(page), fragment(page)) == (
        ["web-go(scratch,dynamic)"],
        "program=web-go&outcome=failed",
    )

    page.go_back()

    assert (len(rows(page)), fragment(page)) == (7, "program=web-go")

    page.go_back()

    assert (cells(page), chooser(page, "Program").input_value()) == (28, "")

    page.go_forward()
    page.go_forward()

    assert rows(page) == ["web-go(scratch,dynamic)"]

    page.locator(".count.failed").click()

    assert fragment(page) == "program=web-go"


def test_skip_link_keeps_filters(opened: Opened) -> None:
    """The first stop of the keyboard leads to the matrix, and changes nothing else."""
    page = opened(fragment=HELLO)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    assert page.evaluate("document.activeElement.id") == "matrix"
    assert fragment(page) == HELLO[1:]


# --- table ----------------------------------------------------------------------------------------


def test_sorting(opened: Opened) -> None:
    """Numbers are sorted as numbers, both ways; what has none comes last."""
    page = opened(fragment=HELLO)
    head = page.get_by_role("columnheader", name="content").first
    before = rows(page)
    head.get_by_role("button").click()
    up = rows(page, "content")

    assert head.get_attribute("aria-sort") == "ascending"
    assert up[:3] == ["17.4 kB*", "26.1 kB*", "763 kB*"]
    assert up[-3:] == ["1.39 GB*", "", ""]

    head.get_by_role("button").click()

    assert head.get_attribute("aria-sort") == "descending"
    assert rows(page, "content") == [*filter(None, reversed(up)), "", ""]

    page.go_back()
    page.go_back()

    assert (rows(page), head.get_attribute("aria-sort")) == (before, None)


def test_sorting_by_keyboard(opened: Opened) -> None:
    """A header is a button: reached by the keyboard, pressed with it."""
    page = opened()
    page.locator("#list thead button").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    assert fragment(page) == "sort=linkage"
    assert rows(page, "linkage") == sorted(rows(page, "linkage"))

    page.keyboard.press("Space")

    assert rows(page, "linkage") == sorted(rows(page, "linkage"), reverse=True)


# --- one variant ----------------------------------------------------------------------------------


def test_facts_by_keyboard(opened: Opened) -> None:
    """Enter on a cell opens all that is known; Escape closes it and leads back."""
    page = opened()
    cell = page.locator(".cell", has_text="missing-library")
    cell.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="web-go(scratch,dynamic)")

    assert dialog.is_visible()
    assert "needs libresolv.so.2, which scratch does not have" in dialog.inner_text()
    assert dialog.locator("pre").inner_text() == "exec /web-go: no such file or directory\n"
    assert fragment(page) == "variant=web-go%28scratch%2Cdynamic%29"

    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "#" not in url)

    assert dialog.is_hidden()
    assert cell.evaluate("cell => cell === document.activeElement")

    page.go_back()

    assert dialog.is_visible()


def test_facts_by_address(opened: Opened) -> None:
    """A link to a variant opens it, also the one that works without scripts."""
    for each in ("#variant=hello-c%28ubuntu%2Cstatic%29", "#v-1"):
        page = opened(fragment=each)

        assert page.get_by_role("dialog", name="hello-c(ubuntu,static)").is_visible()
        page.get_by_role("button", name="Close").click()
        assert page.locator("#dialog").is_hidden()


def test_notes_on_cells(opened: Opened) -> None:
    """Pointing at a cell, or reaching it by keyboard, says why it is what it is."""
    page = opened()
    cell, tip = page.locator(".cell", has_text="exit-code"), page.get_by_role("tooltip")
    cell.hover()

    assert tip.inner_text().startswith("expected to work: ended with exit code 101")
    assert cell.get_attribute("aria-describedby") == "tip"

    page.keyboard.press("Escape")

    assert tip.is_hidden()

    page.locator(".cell").first.focus()

    assert tip.is_hidden()

    cell.focus()

    assert tip.is_visible()


# --- charts ---------------------------------------------------------------------------------------


def test_charts_are_drawn(opened: Opened) -> None:
    """Each canvas has something on it, and says in words what that is."""
    page = opened()
    names = page.locator("canvas:visible").evaluate_all(
        "all => all.map(canvas => canvas.getAttribute('aria-label'))"
    )

    assert len(names) == 8
    assert "Sizes of hello-c: ubuntu, dynamic 79.5 MB* 17.5x passed;" in names[0]
    assert all(pixels > 500 for pixels in drawn(page, "canvas"))


def test_sizes_lead_to_facts(opened: Opened) -> None:
    """A click on a bar opens its variant."""
    page = opened()
    canvas = page.locator(".sizes canvas").nth(1)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    canvas.click(position={"x": box["width"] / 2, "y": 14})

    # Chart.js handles events with the next frame: this waits, or fails.
    page.get_by_role("dialog", name="web-go(ubuntu,dynamic)").wait_for()


def test_history(opened: Opened) -> None:
    """Any variant's runs are shown as charts and as a table; the choice is in the address."""
    page = opened()
    chooser(page, "Variant").select_option("web-go(scratch,static)")
    titles = page.locator("#trends figcaption").all_inner_texts()

    assert titles == [
        "Outcome",
        "Content, all of it above the base",
        "Build time",
        "Start-up time",
        "Peak memory",
    ]
    assert page.locator("#history-said").inner_text() == (
        "60 runs, 2026-09-25 to 2026-11-23: 60 passed. Last: passed."
    )
    assert fragment(page) == "history=web-go%28scratch%2Cstatic%29"

    page.get_by_text("These runs as a table").click()
    page.locator("#history-data tr").nth(60).wait_for()
    lines = page.locator("#history-data tr").all_inner_texts()
    last = lines[1].split("\t")
    said = {
        record.variant: (record.sizes.content, record.seconds.build)
        for record in pagedata.history(60)[-1]
        if record.sizes
    }["web-go(scratch,static)"]

    assert len(lines) == 61
    assert last[:2] == ["2026-11-23 04:00", "passed"]
    assert last[3] == "8.15 MB"
    assert said[0] == 8_153_400
    assert last[5] == f"{said[1]:.3g} s"


def test_from_facts_to_history(opened: Opened) -> None:
    """The dialog leads to the variant's history."""
    page = opened(fragment="#v-3")
    page.get_by_role("button", name="Show its history").click()

    assert chooser(page, "Variant").input_value() == "hello-c(busybox:glibc,dynamic)"
    assert page.locator("#dialog").is_hidden()
    assert page.evaluate("document.activeElement.id") == "variant"


def test_history_without_records(opened: Opened) -> None:
    """What earlier runs measured is shown although there is no run to show."""
    page = opened("past")

    assert page.locator("#variant option").all_inner_texts() == [
        f"program-0(image-{number},static) (not in this run)" for number in range(3)
    ]
    assert all(pixels > 500 for pixels in drawn(page, "#trends canvas"))


# --- nothing executes -----------------------------------------------------------------------------


def test_hostile_text_does_nothing(opened: Opened) -> None:
    """Nothing that names or output say executes, wherever it is shown."""
    page = opened("hostile")
    for cell in page.locator(".cell").all()[:7]:
        cell.hover()
        cell.click()
        page.keyboard.press("Escape")
    options = page.locator("#variant option").evaluate_all("all => all.map(each => each.value)")
    for each in options[:7]:
        chooser(page, "Variant").select_option(each)
    page.get_by_text("These runs as a table").click()
    page.get_by_label("Search").fill(pagedata.HOSTILE[2])
    page.locator("#list thead button").first.click()
    page.wait_for_timeout(100)

    assert cells(page) == 5
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img, main script, dialog img").count() == 0


def test_hostile_address_does_nothing(opened: Opened) -> None:
    """Nor does what an address says."""
    page = opened(fragment="#q=%3Cimg+src%3Dx+onerror%3Dwindow.pwned%3D1%3E&program=%22%3E%3Cb%3E")

    assert page.evaluate("window.pwned") is None
    assert page.get_by_label("Search").input_value() == "<img src=x onerror=window.pwned=1>"


def test_policy_is_in_force(opened: Opened) -> None:
    """A script or handler that got into the page would not run, and nothing could be fetched."""
    page = opened()
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.pwned = 1";
            document.body.append(script);
            const bait = document.body.appendChild(document.createElement("i"));
            bait.setAttribute("onclick", "window.pwned = 1");
            bait.click();
            fetch("https://fixture.test/").catch(() => {});
        }"""
    )
    page.wait_for_timeout(100)
    said = [text for text in opened.noise if "Content Security Policy" in text]
    opened.noise.clear()

    assert page.evaluate("window.pwned") is None
    assert len(said) >= 3


# --- without scripts ------------------------------------------------------------------------------


def test_without_scripts(opened: Opened) -> None:
    """Matrix, table and facts can be read without JavaScript, and no dead control is shown."""
    page = opened(java_script_enabled=False)

    assert page.locator(".cell:visible").count() == 28
    assert page.locator("#list tbody tr:visible").count() == 28
    assert page.locator("button:visible, select:visible, input:visible").count() == 0
    assert page.get_by_text("need JavaScript").is_visible()

    page.get_by_text("Sizes of hello-c as a table").click()

    assert page.get_by_role("region", name="Sizes of hello-c").is_visible()

    page.locator(".cell").first.click()

    assert page.locator("#v-0").is_visible()
