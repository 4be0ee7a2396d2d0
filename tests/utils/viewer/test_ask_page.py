"""The page to ask in, in a real browser (headless Chromium)."""

import pytest

pytest.importorskip("selenium", reason="no browser: pip install selenium")
pytest.importorskip("av")
pytest.importorskip("starlette")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.utils.viewer.served import make_index, serving


@pytest.fixture(scope="module")
def address(chromium, tmp_path_factory):
    with serving(make_index(tmp_path_factory.mktemp("asked")), "--device", "cpu") as address:
        yield address


@pytest.fixture
def page(browser, address):
    """The page, after a question typed into it."""
    browser.get(address)
    press(browser, "Where is the cup?", Keys.ENTER)
    wait(browser, "return document.querySelectorAll('#moments button').length == 12")
    return browser


def press(page, *keys):
    ActionChains(page).send_keys(*keys).perform()


def wait(page, script):
    WebDriverWait(page, 20).until(lambda _: page.execute_script(script))


def text(page, selector):
    return page.execute_script(f"return document.querySelector('{selector}').textContent")


def choose(page, name):
    """Press the first moment of a video; returns its number."""
    names = page.execute_script(
        "return [...document.querySelectorAll('#moments .name')].map((node) => node.textContent)"
    )
    number = names.index(name)
    page.execute_script(f"document.querySelectorAll('#moments button')[{number}].click()")
    return number


def test_moments_are_shown_and_played(page):
    assert text(page, "#status").startswith("12 moments for “Where is the cup?”, in ")
    choose(page, "tuesday.webm")
    wait(page, "const v = document.querySelector('video'); return v.readyState > 1")
    start = page.execute_script(
        "return Number(document.querySelector('video').src.match(/#t=([0-9.]+)/)[1])"
    )
    wait(page, f"return document.querySelector('video').currentTime > {start - 0.1}")
    assert text(page, "#caption").startswith("tuesday.webm, 0:00:")
    wait(page, "return [...document.images].some((image) => image.naturalWidth > 100)")


def test_keys_choose_and_names_are_text(page):
    press(page, Keys.TAB, Keys.TAB, Keys.ENTER)  # past the button, to the first moment
    current = "return [...document.querySelectorAll('#moments button')].findIndex(" \
        "(node) => node.getAttribute('aria-current') == 'true')"  # fmt: skip
    assert page.execute_script(current) == 0
    press(page, "jjk")
    assert page.execute_script(current) == 1
    press(page, "/")
    assert page.execute_script("return document.activeElement.id") == "question"
    choose(page, "monday <b>.mp4")
    assert "monday <b>.mp4, " in text(page, "#caption")
    choose(page, "friday.pt")
    assert "features of it alone" in text(page, "#trouble")


def test_a_phone_shows_the_page_whole(page):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True},
    )
    choose(page, "tuesday.webm")
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    assert page.execute_script("return document.querySelector('video').clientWidth") > 300


def test_what_the_browser_cannot_play_is_said(page):
    page.execute_script(
        "moments[0] = { video: 99, name: 'old.avi', start: 754, end: 760, playable: true }; show(0)"
    )
    wait(page, "return !document.getElementById('trouble').hidden")
    assert "can't play old.avi. Another player can: mpv --start=754.0" in text(page, "#trouble")
    page.get_log("browser")  # a 404 for a video that is not there
