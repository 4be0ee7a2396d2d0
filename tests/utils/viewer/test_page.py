"""The page of predictions and of answers, in a real browser (headless Chromium)."""

import numpy as np
import pytest

from tests.utils.viewer.viewer_sample import (
    HOSTILE,
    make_page,
    view,
    without_times,
    write_predictions_of,
    write_split,
)
from utils.data.annotations import iter_queries, read_annotations
from utils.evaluation.metrics import evaluate
from utils.evaluation.scoring import read_windows, true_windows
from utils.viewer.page import PageClip, PageQueries, PageRun, write_page

pytest.importorskip("selenium", reason="no browser: pip install selenium")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

QUERIES = 5000


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("viewer"), QUERIES)


@pytest.fixture
def page(sample, browser):
    """The page of two challenge files, freshly opened."""
    open_page(browser, sample[0])
    return browser


def open_page(browser, file, fragment=""):
    browser.get("about:blank")
    browser.get(f"{file.as_uri()}{fragment}")


def press(page, *keys):
    ActionChains(page).send_keys(*keys).perform()


def find(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def texts(page, selector):
    return page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)",
        selector,
    )


def choose(page, field, value):
    script = (
        "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
        "field.dispatchEvent(new Event('input', { bubbles: true }));"
    )
    page.execute_script(script, field, value)


def count(page):
    return int(find(page, "#count").text.split()[0])


def selected(page):
    return find(page, "#about h2").text


def wait(page, condition):
    WebDriverWait(page, 10).until(lambda _: condition())


def settle(page):
    """Wait until what follows scrolling or another size has been drawn."""
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def assert_fits(page, width):
    """Nothing is wider than the screen, and no time is cut off."""
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert not page.execute_script(
        "return [...document.querySelectorAll('.timeline td, div.axis')]"
        ".filter((node) => node.scrollWidth > node.clientWidth).map((node) => node.textContent)"
    )


def on_a_phone(page, scheme="light"):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    page.refresh()


def figures(page):
    rows = page.find_elements(By.CSS_SELECTOR, "#figures tbody tr")
    return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]


def test_figures_are_those_of_metrics_and_charts_follow_the_filters(page, sample):
    _, split, files = sample
    queries = list(iter_queries(read_annotations(split)))
    truth = true_windows(queries)
    assert count(page) == len(queries) == QUERIES
    for line, file in zip(figures(page), files, strict=True):
        windows = read_windows(file, queries, 5).windows
        scores = evaluate(truth, windows, topK=(1, 5)).percentages()
        names = ("R@1 IoU=0.3", "R@1 IoU=0.5", "R@5 IoU=0.3", "R@5 IoU=0.5", "mIoU")
        assert line == [f"{scores[name]:.2f}" for name in names] + [str(QUERIES)]
    press(page, "c")
    assert len(texts(page, "#charts figure h2")) == 4
    for clip in ("-1", "3"):
        choose(page, "clip", clip)
        cells = texts(page, "#charts figure:first-of-type .numbers tbody tr:nth-child(7) > *")
        assert cells == ["0.30", *(line[0] for line in figures(page))]
    assert all(svg.accessible_name for svg in page.find_elements(By.CSS_SELECTOR, "svg"))


def test_search_and_filters_choose_queries(page):
    choose(page, "search", "CUP number 4")
    rows = texts(page, ".row .text")
    assert rows and all("cup number" in text for text in rows)
    choose(page, "search", "clip-007")
    assert count(page) == 10
    choose(page, "search", "")
    for field, value, anything in (("object", "red", ""), ("template", "0", "-1")):
        choose(page, field, value)
        assert abs(count(page) - QUERIES / 3) < 2
        choose(page, field, anything)
    choose(page, "search", "nothing of the kind")
    assert count(page) == 0 and find(page, ".none").text == "No query matches."
    assert figures(page)[0][0] == "–"
    find(page, "button[type=reset]").click()
    assert count(page) == QUERIES


def test_queries_are_chosen_and_ordered_by_iou(page):
    def ious(run):
        return [float(text) for text in texts(page, f".row .run-{run}.chip")][:10]

    choose(page, "low", "0.5")
    choose(page, "high", "0.7")
    assert 0 < count(page) < QUERIES and all(0.49 < value < 0.71 for value in ious(1))
    choose(page, "low", "0")
    choose(page, "high", "1")
    choose(page, "order", "iou-down")
    assert (np.diff(ious(1)) <= 0).all()
    choose(page, "order", "iou-up")
    assert max(ious(1)) == 0
    for order, sign in (("gain", 1), ("loss", -1)):
        choose(page, "order", order)
        gains = sign * np.subtract(ious(1), ious(0))
        assert gains[0] > 0.1 and (np.diff(gains) <= 0.011).all()


def test_keys_move_search_and_help(page):
    first, third = texts(page, ".row .text")[:3:2]
    press(page, "jj")
    assert selected(page) == third
    press(page, Keys.ARROW_UP, "k")
    assert selected(page) == first
    press(page, "/", "knife jk")  # letters are letters while one types
    assert find(page, "#search").get_attribute("value") == "knife jk"
    press(page, Keys.ESCAPE)
    choose(page, "search", "")
    press(page, Keys.END)
    assert find(page, "#place").text == f"{QUERIES} of {QUERIES}"
    row = find(page, f"#{find(page, '#list').get_attribute('aria-activedescendant')}")
    assert row.get_attribute("aria-selected") == "true"
    assert row.get_attribute("aria-posinset") == str(QUERIES)
    press(page, "?")
    assert find(page, "#help").is_displayed()
    press(page, "j", Keys.ESCAPE)
    assert not find(page, "#help").is_displayed()
    assert find(page, "#place").text == f"{QUERIES} of {QUERIES}"
    press(page, "z")
    assert find(page, "#zoom").get_attribute("aria-pressed") == "true"


def test_the_address_names_what_is_shown(browser, sample):
    open_page(browser, sample[0], "#query=2500")
    assert "number 2500?" in selected(browser) and find(browser, "#query-2500").is_displayed()
    assert texts(browser, ".facts dd")[-1] == "video-clip-250"
    press(browser, "j")
    wait(browser, lambda: browser.current_url.endswith("#query=2501"))
    find(browser, "#tab-charts").click()
    wait(browser, lambda: browser.current_url.endswith("#charts"))
    browser.refresh()
    assert find(browser, "#charts").is_displayed() and not find(browser, "#list").is_displayed()
    browser.execute_script("location.hash = '#query=7'")
    wait(browser, lambda: find(browser, "#list").is_displayed())
    assert "number 7?" in selected(browser)


def test_hostile_text_stays_text(page):
    press(page, "j")
    assert selected(page) == HOSTILE
    assert texts(page, ".facts dd")[:2] == [f"T{HOSTILE}", f"S{HOSTILE}"]
    assert f"#C C {HOSTILE}" in texts(page, ".narrations li span")
    assert texts(page, "#figures tbody th") == [f"Wide {HOSTILE}", "Close"]
    assert page.title == f"Predictions: Wide {HOSTILE}, Close"
    assert page.find_elements(By.TAG_NAME, "img") == []


def test_a_timeline_shows_windows_and_narrations(page, sample):
    start, end = true_windows(list(iter_queries(read_annotations(sample[1]))))[0]
    assert f"{start:.1f} – {end:.1f}" in texts(page, ".timeline td.time")
    assert len(texts(page, ".timeline tbody.run-0 td.iou")) == 5
    left = find(page, ".timeline .true .bar").get_attribute("style")
    assert f"left: {100 * start / 480:.2f}" in left
    assert len(texts(page, ".timeline .bar.narration")) == 2
    assert len(texts(page, ".timeline .bar.other")) == 9


def test_only_the_rows_in_view_of_5000_queries_are_there(page):
    for value in ("", "knife 1"):
        choose(page, "search", value)
        settle(page)
        assert len(texts(page, ".row")) < 60
    choose(page, "search", "")
    page.execute_script("document.getElementById('list').scrollTop = 66 * 2500")
    settle(page)
    assert any("number 2500" in text for text in texts(page, ".row .text"))
    assert selected(page) in texts(page, ".row[aria-selected=true] .text")


def test_everything_has_a_name(page):
    """What a screen reader says: fields, buttons and regions by name, options as options."""
    for tab in ("charts", "queries"):
        find(page, f"#tab-{tab}").click()
        for node in page.find_elements(By.CSS_SELECTOR, "input, select, button, [role], table"):
            if node.is_displayed() and node.get_attribute("role") != "presentation":
                assert node.accessible_name or node.text, node.get_attribute("outerHTML")[:200]
    roles = {"#list": "listbox", ".row": "option", "#tab-charts": "tab"}
    assert {selector: find(page, selector).aria_role for selector in roles} == roles


def test_a_split_without_times_has_no_figures(browser, tmp_path):
    split = write_split(tmp_path, 20)
    file = write_predictions_of(split, tmp_path / "only.json", 3.0)
    without_times(split)
    view("--annotations", split, "--predictions", file, "--output", tmp_path / "page.html")
    open_page(browser, tmp_path / "page.html")
    assert texts(browser, "#figures tbody > tr > *") == ["only", "20"]
    for unserved in (".of-truth", "#template", "#object"):
        assert not find(browser, unserved).is_displayed()
    assert find(browser, "#clip").is_displayed()
    assert texts(browser, "#order option") == ["as in the file"]
    assert len(texts(browser, ".timeline .run-0 td.time")) == 5
    choose(browser, "clip", "1")
    assert count(browser) == 10
    press(browser, "zc")
    assert texts(browser, "#charts figure h2") == ["Length of windows", "Position of windows"]


def test_answers_are_shown_and_played(browser, tmp_path):
    """To questions about a video: no ground truth, no figures; it plays at the windows."""
    pytest.importorskip("av")
    from tests.utils.features.clocked import encode

    encode(tmp_path / "my day #1.webm", "libvpx")  # every browser plays it
    questions = ["Where was the card?", HOSTILE]
    windows = [[[12, 15], [3, 4], [np.nan, np.nan]], [[3.2, 4], [86390, 86399], [16, 18.0]]]
    scores = [[0.25, 1.23456e-5, np.nan], [0.5, 0.25, 0.1]]
    write_page(
        tmp_path / "page.html",
        PageQueries(text=questions, clip=["day"] * 2),
        [PageRun(HOSTILE, np.array(windows), np.ones(2, bool), np.array(scores))],
        {"day": PageClip(86400.0, video="my%20day%20%231.webm")},
        answers=True,
    )
    open_page(browser, tmp_path / "page.html")
    assert browser.title == "Answers: day" and find(browser, "h1").text == "Answers"
    assert count(browser) == 2 and texts(browser, ".row .text") == questions
    for hidden in ("nav", "#fields", "#more", "#figures", "#charts"):
        assert not find(browser, hidden).is_displayed(), hidden
    assert texts(browser, ".facts > *") == ["video", "day 24:00:00"]
    assert texts(browser, ".timeline td.time") == ["0:00:12 – 0:00:15", "0:00:03 – 0:00:04"]
    assert texts(browser, ".timeline td.iou") == ["0.25", "0.0000123"]

    def played():
        return browser.execute_script("return document.querySelector('video').currentTime")

    wait(browser, lambda: abs(played() - 12) < 0.2)  # shown, not played
    find(browser, ".timeline tr:last-of-type td.time button").click()
    wait(browser, lambda: 3 <= played() <= 4.5)
    press(browser, "p")
    wait(browser, lambda: 12 <= played() <= 15.5)

    press(browser, "jcz")
    assert selected(browser) == HOSTILE and not find(browser, "#charts").is_displayed()
    assert browser.find_elements(By.TAG_NAME, "img") == []
    on_a_phone(browser)
    browser.execute_script("select(1); showDetail(true)")
    assert "23:59:50 – 23:59:59" in texts(browser, ".timeline td.time")
    assert_fits(browser, 390)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_list_query_and_charts_take_turns(page, scheme):
    on_a_phone(page, scheme)
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    assert_fits(page, 390)
    find(page, ".row").click()
    assert_fits(page, 390)
    find(page, "#back").click()
    assert find(page, "#list").is_displayed() and not find(page, "#detail").is_displayed()
    find(page, "#tab-charts").click()
    assert_fits(page, 390)
