"""The live page in a real browser, before a real stack whose analyzer waits when it is told to."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from vuemantics_pipeline.gateway.tokens import token_for
from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline_tests.acceptance.conftest import (
    SAMPLES,
    SCREENSHOTS,
    App,
    keep,
    outside_environment,
)
from vuemantics_pipeline_tests.faults.stack import FaultStack
from vuemantics_pipeline_tests.support import NewBatch, add_batch, add_user, batch_row, photo

WAIT = 60_000
"""Milliseconds until something has happened that takes a run."""

HOSTILE = '<img src=x onerror="window.hacked=1">\u202egpj.jpg'
PHOTOS = (
    *("astronaut_portrait.jpg", "dahlia.jpg", "cat_close_up.png", "coffee_on_wooden_table.jpg"),
    *("mountain_trail.heic", "two_dogs_at_a_door.jpg", "wine_and_drum.jpg"),
)
CAT_WIDTH, COFFEE_WIDTH = 451, 600

_LAUNCHER = """
from vuemantics_pipeline.cli import main
from vuemantics_pipeline.home import stack
stack.DEFINITIONS = "vuemantics_pipeline_tests.acceptance.held_definitions"
main()
"""


@dataclass
class Live:
    """A stack with a gateway, the user that its link signs in, and the browser."""

    stack: FaultStack
    browser: Browser
    link: str
    user_id: UUID

    @property
    def url(self) -> str:
        return self.stack.app.gateway_url

    @property
    def gateway(self) -> psutil.Process:
        process = self.stack.service("vuemantics_pipeline", "gateway")
        assert process is not None
        return process

    def add_batch(self, files: dict[str, bytes], *, offered: int | None = None) -> NewBatch:
        with self.stack.connect() as connection:
            return add_batch(
                connection,
                self.user_id,
                files=files,
                offered=offered,
                uploads_root=self.stack.uploads_root,
            )

    def other_user_token(self) -> str:
        """The access token of somebody who has no batches."""
        secret = (self.stack.home / "secret_key").read_text()
        with self.stack.connect() as connection:
            return token_for(connection, secret, add_user(connection), lifetime=timedelta(hours=1))

    @contextmanager
    def visit(self, address: str, **options: Any) -> Iterator[Page]:
        """Open an address in a browser of its own, and insist that no script of the page fails."""
        context = self.browser.new_context(**options)
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: (
                faults.append(message.text) if "Content Security" in message.text else None
            ),
        )
        try:
            page.goto(address)
            page.evaluate("window.hasNotReloaded = true")
            yield page
            assert page.evaluate("window.hasNotReloaded"), "The page was loaded anew."
            assert faults == []
        finally:
            context.close()

    @contextmanager
    def signed_in(self, batch: NewBatch | None = None, **options: Any) -> Iterator[Page]:
        """The page of the user, with one batch open."""
        address = f"{self.link}#{batch.batch_id}" if batch else self.link
        with self.visit(address, **options) as page:
            expect(page.get_by_text("Live", exact=True)).to_be_visible()
            yield page


@pytest.fixture(scope="module")
def live(browser: Browser) -> Iterator[Live]:
    # Not under tmp_path: see faults/stack.py.
    folder = Path(tempfile.mkdtemp(prefix="vuemantics-live-"))
    home = folder / "home"
    environment = outside_environment() | {
        "VUEMANTICS_HOME": str(home),
        # The pictures are to show real descriptions; all else is the same without.
        "VUEMANTICS_ANALYZER": "embedded" if SCREENSHOTS else "none",
        "VUEMANTICS_REUSE": "false",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    app = App(home, free_port(), environment, gateway_port=free_port())
    stack = FaultStack(app)
    ports = ("--port", str(app.port), "--gateway-port", str(app.gateway_port))
    try:
        with (folder / "up.stderr").open("w") as stderr:
            stack.up = subprocess.Popen(
                [sys.executable, "-c", _LAUNCHER, "up", *ports],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        assert stack.up.stdout is not None
        said = stack.up.stdout.readline() + stack.up.stdout.readline()
        found = re.search(rf"{app.gateway_url}/\?token=\S+", said)
        assert found, (said, (folder / "up.stderr").read_text())
        with stack.connect() as connection:
            row = connection.execute("SELECT id FROM users").fetchone()
            assert row is not None
        yield Live(stack, browser, found[0], row[0])
        assert stack.stop() == 0
    finally:
        if stack.up is not None:
            stack.kill_everything()
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def nothing_held(live: Live) -> Iterator[None]:
    yield
    live.stack.hold()


@pytest.fixture(scope="module")
def album(live: Live) -> NewBatch:
    """A batch that has ended. Of its two files that failed, one test mends the second."""
    whole = (SAMPLES / "dahlia.jpg").read_bytes()
    batch = live.add_batch(
        {
            HOSTILE: whole,
            "cut_off.jpg": whole[:20_000],
            "small.jpg": photo(32),
            "mended.jpg": b"no photo",
        }
    )
    live.stack.await_status(batch, "completed")
    live.stack.await_idle()  # a batch is not given back while its run is ending
    return batch


def card(page: Page, batch: NewBatch) -> Locator:
    """A batch on the page."""
    return page.locator(f"li.batch:has(#batch-title-{batch.batch_id})")


def file(page: Page, name: str) -> Locator:
    """A file of the open batch."""
    return page.locator("li.upload").filter(has=page.get_by_text(name, exact=True))


def bar(batch: Locator) -> float:
    """How far the progress bar of a batch has come, in percent."""
    value: float = batch.locator("> progress").evaluate("bar => bar.value")
    return value


def test_the_link_signs_in_and_its_token_stays_nowhere(live: Live) -> None:
    with live.visit(live.link) as page:
        expect(page.get_by_role("heading", name="Your batches")).to_be_visible()
        assert page.url == f"{live.url}/"

        token = live.link.partition("=")[2]
        traces = page.evaluate(
            "JSON.stringify([performance.getEntries(), document.cookie, document.referrer,"
            " history.state, {...localStorage}, {...sessionStorage},"
            " document.documentElement.outerHTML])"
        )
        assert token not in traces
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        page.goto("about:blank")
        page.go_back()
        assert page.url == f"{live.url}/"
        page.evaluate("window.hasNotReloaded = true")


def test_a_token_is_pasted_and_forgotten(live: Live, album: NewBatch) -> None:
    with live.visit(f"{live.url}/#{album.batch_id}") as page:
        field = page.get_by_label("Access token")
        field.fill("not-a-token")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("The token is not valid.")
        expect(field).to_have_value("")

        field.fill(live.link.partition("=")[2])
        page.get_by_role("button", name="Sign in").click()
        expect(card(page, album).get_by_text("cut_off.jpg")).to_be_visible()
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(field).to_have_value("")

        page.get_by_role("button", name="Sign out").click()
        expect(field).to_be_focused()
        assert page.locator("li").count() == 0
        assert page.context.cookies() == []

    with live.visit(f"{live.url}/?token=not-a-token") as page:
        expect(page.get_by_role("alert")).to_contain_text("is not valid")
        assert page.url == f"{live.url}/"


def test_a_batch_runs_and_its_bars_move(live: Live) -> None:
    live.stack.hold(CAT_WIDTH)
    size = {"width": 1280, "height": 900}
    with live.visit(live.link, viewport=size) as page, live.visit(live.url) as stranger:
        told: list[str | bytes] = []
        stranger.on(
            "websocket",
            lambda socket: socket.on("framereceived", lambda frame: told.append(frame)),
        )
        stranger.get_by_label("Access token").fill(live.other_user_token())
        stranger.get_by_role("button", name="Sign in").click()
        expect(stranger.get_by_text("There are none yet.")).to_be_visible()
        expect(page.get_by_text("Live", exact=True)).to_be_visible()

        files = {name: (SAMPLES / name).read_bytes() for name in PHOTOS}
        files["cut_off.jpg"] = files["dahlia.jpg"][:20_000]
        batch = live.add_batch(files)
        shown = card(page, batch)
        shown.get_by_role("button", name=re.compile(r"\d{4}")).click(timeout=WAIT)
        assert page.url == f"{live.url}/#{batch.batch_id}"
        expect(shown.get_by_text("2 done, 0 failed, 8 in all")).to_be_visible(timeout=WAIT)
        expect(shown.locator(".head")).to_contain_text("Running")
        expect(shown.get_by_text("Looking at it: cat_close_up.png")).to_be_visible()
        expect(file(page, "cat_close_up.png")).to_contain_text("Looking at it, 15%")
        expect(file(page, "wine_and_drum.jpg")).to_contain_text("Waiting for its turn")
        dahlia = file(page, "dahlia.jpg")
        expect(dahlia).to_contain_text("Done")
        expect(dahlia.locator("img")).to_have_js_property("naturalWidth", 256)
        assert bar(shown) == 25

        live.stack.hold(COFFEE_WIDTH)
        expect(shown.get_by_text("3 done, 0 failed, 8 in all")).to_be_visible(timeout=WAIT)
        expect(shown.get_by_text(re.compile(r"About .* left"))).to_be_visible(timeout=WAIT)
        assert 25 < bar(shown) < 50
        keep(page, "live.png")
        page.set_viewport_size({"width": 375, "height": 812})
        page.emulate_media(color_scheme="dark")
        keep(page, "live-dark-phone.png")

        live.stack.hold()
        expect(shown.get_by_text("7 done, 1 failed, 8 in all")).to_be_visible(timeout=WAIT)
        expect(shown.locator(".head")).to_contain_text("Done, with failures")
        expect(page.locator("#news")).to_contain_text("7 done, 1 failed")
        assert bar(shown) == 100
        expect(file(page, "cut_off.jpg")).to_contain_text("Failed")

        expect(stranger.get_by_text("There are none yet.")).to_be_visible()
        assert stranger.locator("li").count() == 0
        assert any("auth_success" in str(frame) for frame in told)
        assert not any(str(batch.batch_id) in str(frame) for frame in told)


def test_a_failed_file_shows_its_reason(live: Live, album: NewBatch) -> None:
    with live.stack.connect() as connection:
        row = connection.execute(
            "SELECT error_message FROM uploads WHERE id = %s", (album.uploads["cut_off.jpg"],)
        ).fetchone()
    assert row is not None
    with live.signed_in(album) as page:
        expect(page.locator("li.upload")).to_have_count(4)
        expect(file(page, "cut_off.jpg").locator(".reason")).to_have_text(row[0])

        card(page, album).get_by_label("Failed files only").check()
        expect(file(page, "small.jpg")).to_have_count(0)
        expect(file(page, "cut_off.jpg")).to_be_visible()


def test_a_hostile_file_name_is_text(live: Live, album: NewBatch) -> None:
    with live.signed_in(album) as page:
        hostile = page.locator("li.upload").first
        expect(hostile.locator("bdi")).to_have_text(HOSTILE)
        expect(hostile.locator("img[alt='']")).to_have_count(1)
        assert page.locator("img[src='x']").count() == 0
        assert page.evaluate("window.hacked") is None


def test_another_user_gets_nothing_of_it(live: Live, album: NewBatch) -> None:
    addresses = [
        f"/batches/{album.batch_id}",
        f"/batches/{album.batch_id}/uploads",
        f"/uploads/{album.first}/thumbnail",
    ]
    with live.signed_in() as page:
        assert statuses(page.context, live, addresses) == [200, 200, 200]
    with live.visit(f"{live.url}/?token={live.other_user_token()}") as page:
        expect(page.get_by_text("There are none yet.")).to_be_visible()
        assert statuses(page.context, live, addresses) == [404, 404, 404]
        page.evaluate("id => (location.hash = id)", str(album.batch_id))
        expect(page.get_by_role("alert")).to_be_visible()
        assert page.locator("li").count() == 0
    with live.visit(live.url) as page:
        assert statuses(page.context, live, addresses) == [401, 401, 401]


def statuses(context: BrowserContext, live: Live, addresses: list[str]) -> list[int]:
    """What a browser's own requests are answered."""
    return [context.request.get(f"{live.url}{address}").status for address in addresses]


def test_the_page_recovers_from_the_gateways_death(live: Live) -> None:
    live.stack.hold(41)
    with live.signed_in() as page:
        batch = live.add_batch({f"{width}.jpg": photo(width) for width in (40, 41, 42)})
        shown = card(page, batch)
        shown.get_by_role("button", name=re.compile(r"\d{4}")).click(timeout=WAIT)
        expect(shown.get_by_text("1 done, 0 failed, 3 in all")).to_be_visible(timeout=WAIT)
        killed = live.gateway

        killed.kill()
        expect(page.get_by_text("Reconnecting …")).to_be_visible()
        live.stack.hold(42)  # the work goes on meanwhile
        expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=WAIT)
        expect(shown.get_by_text("2 done, 0 failed, 3 in all")).to_be_visible(timeout=WAIT)
        expect(file(page, "41.jpg")).to_contain_text("Done")
        assert live.gateway.pid != killed.pid

        live.stack.hold()
        expect(shown.get_by_text("3 done, 0 failed, 3 in all")).to_be_visible(timeout=WAIT)
        expect(shown.locator(".head")).to_contain_text("Done")
        expect(file(page, "42.jpg").locator("img")).to_be_attached()


def test_cancel_stops_the_batch(live: Live) -> None:
    live.stack.hold(51)
    with live.signed_in() as page:
        batch = live.add_batch({f"{width}.jpg": photo(width) for width in (50, 51, 52, 53)})
        shown = card(page, batch)
        shown.get_by_role("button", name=re.compile(r"\d{4}")).click(timeout=WAIT)
        expect(shown.get_by_text("1 done, 0 failed, 4 in all")).to_be_visible(timeout=WAIT)

        shown.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Keep it running").click()
        assert live.stack.status(batch) == "processing"
        shown.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Cancel the batch").click()
        expect(shown.locator(".head")).to_contain_text("Cancelled")
        assert live.stack.status(batch) == "cancelled"

        live.stack.hold()
        live.stack.await_idle()
        with live.stack.connect() as connection:
            row = batch_row(connection, batch.batch_id)
        assert (row.status, row.failed) == ("cancelled", 0)
        assert row.successful in (1, 2)  # the one in hand was brought to its end, or given back
        expect(shown.get_by_text(f"{row.successful} done, 0 failed, 4 in all")).to_be_visible()
        expect(shown.locator(".head")).to_contain_text("Cancelled")
        expect(file(page, "53.jpg")).to_contain_text("Not processed")
        expect(shown.get_by_role("button", name="Cancel")).to_be_hidden()


def test_failed_files_are_retried(live: Live, album: NewBatch) -> None:
    with live.signed_in(album) as page:
        shown, mended = card(page, album), file(page, "mended.jpg")
        expect(shown.get_by_text("2 done, 2 failed, 4 in all")).to_be_visible()
        expect(mended).to_contain_text("Failed")

        (path,) = live.stack.uploads_root.glob(f"*/{album.uploads['mended.jpg']}/original.jpg")
        path.write_bytes(photo(60))
        retry = shown.get_by_role("button", name="Retry failed files")
        retry.click()
        expect(retry).to_be_hidden()
        expect(shown.get_by_text("3 done, 1 failed, 4 in all")).to_be_visible(timeout=WAIT)
        expect(mended).to_contain_text("Done")
        expect(mended.locator("img")).to_be_attached()
        expect(mended.locator(".reason")).to_be_hidden()
        expect(file(page, "cut_off.jpg")).to_contain_text("Failed")


def test_many_files_come_a_page_at_a_time(live: Live) -> None:
    # More are offered than come, so that nothing is processed meanwhile.
    batch = live.add_batch({f"{number}.jpg": photo() for number in range(1, 121)}, offered=999)
    with live.signed_in(batch) as page:
        shown = card(page, batch)
        for count in (50, 100, 120):
            expect(page.locator("li.upload")).to_have_count(count)
            if count < 120:
                shown.get_by_role("button", name="Show more files").click()
        expect(shown.get_by_role("button", name="Show more files")).to_be_hidden()
        names = page.locator("li.upload bdi").all_text_contents()
        assert names == [f"{number}.jpg" for number in range(1, 121)]
    live.stack.settle()


def test_everything_is_reached_by_keyboard(live: Live, album: NewBatch) -> None:
    with live.signed_in() as page:
        toggle = card(page, album).get_by_role("button", name=re.compile(r"\d{4}"))
        expect(toggle).to_be_visible()
        for _ in range(50):
            page.keyboard.press("Tab")
            if toggle.evaluate("button => button === document.activeElement"):
                break
        expect(toggle).to_be_focused()
        assert toggle.evaluate("button => getComputedStyle(button).outlineStyle") == "solid"

        page.keyboard.press("Enter")
        expect(toggle).to_have_attribute("aria-expanded", "true")
        expect(page.locator("li.upload")).to_have_count(4)
        page.keyboard.press("Tab")
        expect(card(page, album).get_by_role("button", name="Retry failed files")).to_be_focused()
        page.keyboard.press("Tab")
        expect(card(page, album).get_by_label("Failed files only")).to_be_focused()
        page.keyboard.press("Space")
        expect(file(page, "small.jpg")).to_have_count(0)
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        expect(toggle).to_have_attribute("aria-expanded", "false")
        assert page.url == f"{live.url}/"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_by_day_and_by_night(live: Live, album: NewBatch, scheme: Any) -> None:
    phone = {"viewport": {"width": 375, "height": 812}, "is_mobile": True, "has_touch": True}
    with live.signed_in(album, color_scheme=scheme, **phone) as page:
        expect(page.locator("li.upload")).to_have_count(4)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        too_small = page.evaluate(
            "[...document.querySelectorAll('button, label')].filter((one) => one.offsetHeight > 0"
            " && !one.matches('.toggle') && one.offsetHeight < 24).length"
        )
        assert too_small == 0
        assert [poor for poor in page.evaluate(CONTRASTS) if poor["ratio"] < 4.5] == []


CONTRASTS = """() => {
  const light = (colour) => {
    const [red, green, blue] = colour.match(/[\\d.]+/g).map(Number).map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
  };
  const says = (element) => [...element.childNodes].some((node) => node.nodeType === 3
    && node.data.trim()) && element.checkVisibility();
  return [...document.querySelectorAll("body *")].filter(says).map((element) => {
    const [one, other] = [getComputedStyle(element).color, ground(element)].map(light);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    return { text: element.textContent, ratio };
  });
}"""
"""Contrast of every text that is shown with what is behind it, by WCAG 2.2's definition."""
