"""The page of the service: its own text, and what it does in headless Chromium."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from fake_service import FakeService, embed

from benchrouter import Router
from benchrouter.demo import Demo, make_demo
from benchrouter.serving.service.decision_page import page

INERT = "<img src=x onerror=window.pwned=1>"
PROMPT = "What is 17 times 24 plus 3? Answer with a number."
FAR = "Ĝŭ ĵĥ ŝĉ 漢字 仮名 жизнь"
TEXT = page()[0].decode()
VOID = {"meta", "link", "input", "br", "img"}


def fixed(value: float, digits: int = 3) -> str:
    """As JavaScript's toFixed: a half goes up, where Python's formats go to the even digit."""
    return str(Decimal(value).quantize(Decimal(10) ** -digits, ROUND_HALF_UP))


# --- The text of the page, without a browser -----------------------------------------------------


class Elements(HTMLParser):
    """Every element as (tag, attributes, text within it), and whether the tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.found[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for i in self._open:
            self.found[i][2].append(data)

    def of(self, *tags: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, "".join(text)) for tag, attrs, text in self.found if tag in tags]


@pytest.fixture(scope="module")
def elements() -> Elements:
    return Elements(TEXT)


def only_text_between(tag: str) -> str:
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", TEXT, re.DOTALL)
    return text


def test_policy_allows_the_pages_own_script_and_style_and_nothing_else():
    _, headers = page()
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    for tag in ("script", "style"):
        digest = hashlib.sha256(only_text_between(tag).encode()).digest()
        assert policy[f"{tag}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["img-src"] == "data:"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_page_is_whole_in_itself(elements):
    urls = set(re.findall(r"[a-z]+://[^\s'\"<>)]+", TEXT))
    assert urls == {"http://www.w3.org/2000/svg"}  # a name space, within the icon
    assert not re.search(r"@import|url\(|integrity=|\r", TEXT)
    for _, attributes, _ in elements.found:
        assert "src" not in attributes
        assert "style" not in attributes  # the policy would not let it count
        assert not [name for name in attributes if name.startswith("on")]
    links = [attributes["href"] for attributes, _ in elements.of("a", "link")]
    assert all(link.startswith("data:") or link == "openapi.json" for link in links)
    assert len(page()[0]) < 100_000


def test_script_makes_no_markup_of_text():
    script = only_text_between("script")
    assert script.lstrip().startswith('"use strict";')
    for sink in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert sink not in script
    assert set(re.findall(r'fetch\((\w+|"[^"]*")', script)) == {"path"}
    assert set(re.findall(r'"(/?v1/\w+)"', script)) == {"v1/models", "v1/explain", "v1/choose"}


def test_ids_are_unique_and_every_reference_finds_its_element(elements):
    ids = [attributes["id"] for _, attributes, _ in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in elements.found:
        for name in ("for", "aria-controls", "aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(ids)
    assert set(re.findall(r'byId\("([\w-]+)"\)', only_text_between("script"))) <= set(ids)


def test_every_control_has_a_label(elements):
    labelled = {attributes.get("for"): text.strip() for attributes, text in elements.of("label")}
    controls = elements.of("input", "select", "textarea")
    assert len(controls) >= 8
    for attributes, _ in controls:
        assert labelled[attributes["id"]]
    for _, text in elements.of("button", "summary", "legend", "a", "title", "h1", "h2"):
        assert text.strip()
    ((root, _),) = elements.of("html")
    assert root["lang"] == "en"
    assert {attributes.get("name") for attributes, _ in elements.of("meta")} >= {"viewport"}
    assert "maximum-scale" not in TEXT


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of sRGB in [0, 1] (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_the_known_one_of_black_white_and_grey():
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    grey = (0x77 / 255,) * 3
    assert contrast(grey, (1, 1, 1)) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_of_both_themes_have_enough_contrast(theme):
    blocks = re.findall(r":root \{(.*?)\}", only_text_between("style"), re.DOTALL)
    assert len(blocks) == 2
    colours = {
        name: tuple(int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
        for name, digits in re.findall(r"--([\w-]+): #(\w{6});", blocks[theme])
    }
    for text, behind in [
        *[(name, "page") for name in ("ink", "muted", "accent", "error")],
        *[("ink", "raised"), ("muted", "raised"), ("on-accent", "accent")],
    ]:
        assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    for shape in ("edge", "bar"):  # borders of controls, bars and strokes
        assert contrast(colours[shape], colours["page"]) >= 3, shape


# --- The page in a browser -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.common.exceptions import SessionNotCreatedException

    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no chromium and chromedriver on PATH (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    except SessionNotCreatedException as error:
        pytest.skip(f"chromium does not start: {error.msg}")
    driver.set_page_load_timeout(30)
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def demo() -> Demo:
    return make_demo(n=60)


@pytest.fixture(scope="module")
def router(demo) -> Router:
    return Router.fit(demo.table, embeddings=embed(demo.table.prompts))


@pytest.fixture
def service(router) -> Iterator[FakeService]:
    started = FakeService({"default": router})
    yield started
    started.close()


@pytest.fixture
def opened(browser, service) -> Browser:
    browser.open(service.url)
    return browser


class Browser:
    """What a reader does with the page, and what they see."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.run = driver.execute_script

    def open(self, url: str, width: int = 1280) -> None:
        self.theme("light")
        self.width(width)
        self.driver.get_log("browser")
        self.driver.get("about:blank")
        self.driver.get(url)
        self.wait(lambda: self.text("#about, #notice, #key-title"))

    def width(self, pixels: int, height: int = 900) -> None:
        size = {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def theme(self, scheme: str, motion: str = "reduce") -> None:
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def wait(self, until: Callable[[], Any], seconds: float = 20) -> Any:
        end = time.monotonic() + seconds
        while not (found := until()):
            assert time.monotonic() < end, "what was waited for has not come"
            time.sleep(0.02)
        return found

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        (found,) = self.all(selector)
        return found

    def text(self, selector: str) -> str:
        """Text of the elements that are displayed, a line each."""
        texts = [element.text for element in self.all(selector) if element.is_displayed()]
        return "\n".join(texts).strip()

    def words(self, selector: str) -> list[str]:
        """Text of every element as in the document, displayed or not, spaces made one."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return [" ".join(text.split()) for text in self.run(script, selector)]

    def cells(self, part: str, caption: str) -> list[list[str]]:
        """Cells of the body of a table."""
        script = """
            const table = [...document.querySelectorAll(`#${arguments[0]}-answer table`)]
              .find((t) => t.caption.textContent.startsWith(arguments[1]));
            return [...table.tBodies[0].rows].map((r) => [...r.cells].map((c) => c.textContent))
        """
        return self.run(script, part, caption)

    def press(self, *keys: str) -> None:
        """Press keys, the ones before the last held down."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        codes = [getattr(Keys, key, key) for key in keys]
        actions = ActionChains(self.driver)
        for code in codes[:-1]:
            actions.key_down(code)
        actions.send_keys(codes[-1])
        for code in codes[:-1]:
            actions.key_up(code)
        actions.perform()

    def focused(self) -> str:
        return self.run("return document.activeElement.id || document.activeElement.className")

    def fill(self, selector: str, text: str) -> None:
        """Set a control's text as pasting does: at once."""
        script = """
            const control = document.querySelector(arguments[0]);
            control.value = arguments[1];
            control.dispatchEvent(new Event("input", { bubbles: true }));
            control.focus()
        """
        self.run(script, selector, text)

    def answered(self, part: str, what: str = "chosen") -> str:
        """Wait for an answer, or an error; the text of the part's answer."""
        answer = f"#{part}-answer"
        self.wait(lambda: self.all(f"{answer}:not([aria-busy]) .{what}"))
        return self.text(answer)

    def ask(self, prompt: str, what: str = "chosen") -> str:
        self.run("document.getElementById('prompt-answer').replaceChildren()")
        self.fill("#prompt", prompt)
        self.press("CONTROL", "ENTER")
        return self.answered("prompt", what)

    def choose(self, prompts: str | None = None, what: str = "chosen") -> str:
        if not self.one("#task-panel").is_displayed():
            self.one("#task-tab").click()
        self.run("document.getElementById('task-answer').replaceChildren()")
        if prompts is not None:
            self.fill("#prompts", prompts)
        self.one("#task-form .primary").click()
        return self.answered("task", what)

    def load(self, path: Path) -> None:
        if not self.one("#task-panel").is_displayed():
            self.one("#task-tab").click()
        self.run(
            "for (const id of ['dropped', 'task-answer']) "
            "document.getElementById(id).replaceChildren()"
        )
        if not self.one("#file").is_displayed():
            self.run("unload()")
        self.one("#file").send_keys(str(path))
        self.wait(lambda: self.text("#dropped, #task-answer .error"))

    def complaints(self) -> list[str]:
        """What the console holds but for failed requests: errors of the script, of the policy."""
        entries = self.driver.get_log("browser")
        return [e["message"] for e in entries if "Failed to load resource" not in e["message"]]


def test_opening_tells_what_the_router_knows(opened, router):
    assert opened.text("#about") == "6 models, known from 480 records of 8 benchmark datasets"
    standing = {m["name"]: m["standing"] for m in router.describe()["models"]}
    best_first = sorted(standing, key=standing.__getitem__, reverse=True)
    shown = opened.cells("prompt", "Models")
    assert [row[:2] for row in shown] == [[m, fixed(standing[m])] for m in best_first]
    assert shown[0][2] == "0.90 / 0.90"
    assert not opened.one("#router").is_displayed()  # there is one only
    assert not opened.one("#key-form").is_displayed()
    assert opened.focused() == "prompt"
    assert opened.complaints() == []


def test_a_prompt_is_explained(opened, router):
    found = router.explain(PROMPT, embedding=embed([PROMPT])[0])
    answer = opened.ask(PROMPT)
    assert opened.words(".chosen h2") == [f"Chosen{found.model}"]
    assert f"{found.reason}." in answer
    scores = dict(zip(found.models, found.scores.tolist(), strict=True))
    shown = opened.cells("prompt", "Predicted scores")
    assert [row[0].removesuffix(", chosen") for row in shown] == sorted(
        scores, key=scores.__getitem__, reverse=True
    )
    chances = dict(zip(found.models, found.chance.tolist(), strict=True))
    for name, score, price, chance, votes in shown:
        model = name.removesuffix(", chosen")
        assert name.endswith(", chosen") == (model == found.model)
        assert score == fixed(scores[model])
        assert chance.startswith(f"{fixed(100 * chances[model], 1)} % (")
        right = sum(n.scores[model] == 1 for n in found.neighbours)
        assert votes == f"right on {right} of {len(found.neighbours)}"
        assert re.fullmatch(r"0\.\d\d / 0\.\d\d", price)
    widths = opened.run("return [...document.querySelectorAll('.track i')].map(b => b.style.width)")
    shares = [float(width.removesuffix("%")) / 100 for width in widths]
    assert_allclose = np.testing.assert_allclose
    assert_allclose(shares, sorted(scores.values(), reverse=True), atol=1e-4)

    shown = opened.cells("prompt", "Neighbours")
    assert [row[0] for row in shown] == [str(i + 1) for i in range(len(found.neighbours))]
    for (_, record, similarity, weight), neighbour in zip(shown, found.neighbours, strict=True):
        assert record.startswith(neighbour.dataset + neighbour.prompt)
        right = [m for m, score in neighbour.scores.items() if score == 1]
        assert f"Right: {len(right)} of 6" in record
        assert all(model in record for model in right)
        assert similarity == fixed(neighbour.similarity)
        assert weight == f"{fixed(100 * neighbour.weight, 1)} %"
    assert f"And {found.n_voting - len(found.neighbours)} more, less similar, voted." in answer
    datasets = [n.dataset for n in found.neighbours]
    assert sorted(opened.words(".legend li")) == sorted(
        f"{name} {datasets.count(name)} of {len(datasets)}" for name in set(datasets)
    )
    assert opened.words("#status") == [f"{found.model} is chosen. {found.reason}"]
    assert opened.focused() == "prompt"
    assert "version 0123456789ab · rule auto" in answer
    assert opened.complaints() == []


def test_the_chance_and_what_moved_the_scores_are_shown(opened, router):
    found = router.explain(PROMPT, embedding=embed([PROMPT])[0])
    answer = opened.ask(PROMPT)
    m = found.models.index(found.model)
    assert f"Chance of a right answer\n{fixed(100 * found.chance[m], 1)} %" in answer
    low, high = (fixed(100 * ends[m], 1) for ends in (found.chance_low, found.chance_high))
    assert f"80 % interval\n{low} – {high} %" in answer
    assert "Predicted score\n" not in answer  # the chance stands in its place
    shown = {row[0]: row[1:] for row in opened.cells("prompt", "Where the scores come from")}
    for i, model in enumerate(found.models):
        pulls = [found.pulls[view][i] for view in ("votes", "datasets", "embedding")]
        signed = [("−" if pull < 0 else "+") + fixed(abs(pull)) for pull in pulls]
        assert shown[model] == [fixed(found.standing[i]), *signed, fixed(found.scores[i])]
    assert f"is {fixed(100 * found.strange, 1)} %: it counts as" in answer
    opened.one("#prompt-form summary").click()
    opened.one("#rule option[value=mean]").click()
    answer = opened.ask(PROMPT)
    assert "Predicted score\n" in answer and "Chance of a right answer" not in answer
    assert "Where the scores come from" not in answer and "more, less similar" not in answer


def test_distance_is_shown_against_the_benchmarks_range(opened, router):
    described = router.describe()
    limit = described["distance_limit"]
    distances = sorted(d["distance"] for d in described["datasets"])

    def strip() -> tuple[list[float], float, float]:
        lefts = opened.run(
            "return [...document.querySelectorAll('.strip i')].map((i) => [i.className, "
            "parseFloat(i.style.left)])"
        )
        of = {kind: [left for k, left in lefts if k == kind] for kind, _ in lefts}
        return of["dataset"], of["limit"][0], of["here"][0]

    found = router.explain(PROMPT, embedding=embed([PROMPT])[0])
    answer = opened.ask(PROMPT)
    strokes, of_limit, here = strip()
    np.testing.assert_allclose(np.array(strokes) / here, np.array(distances) / found.distance, 1e-3)
    assert of_limit / here == pytest.approx(limit / found.distance, rel=1e-3)
    assert f"lies {fixed(found.distance)} from its nearest records" in answer
    assert f"{fixed(distances[0])} to " in answer

    found = router.explain(FAR, embedding=embed([FAR])[0])
    assert found.fallback
    answer = opened.ask(FAR)
    assert opened.words(".chosen h2")[0].startswith("Fallback")
    assert f"beyond the limit of {fixed(limit)}" in answer
    strokes, of_limit, here = strip()
    assert max(strokes) < 100 and of_limit < here < 100
    assert "Lead over the next" not in answer


def test_options_are_sent_and_their_costs_shown(opened, service, router):
    opened.ask(PROMPT)
    assert service.requests[-1] == ("/v1/explain", {"prompt": PROMPT, "router": "default"})
    opened.one("#prompt-form summary").click()
    opened.fill("#output-tokens", "300")
    answer = opened.ask(PROMPT)
    assert "Expected cost" in answer
    assert re.fullmatch(r"\$0\.000\d+", opened.cells("prompt", "Predicted scores")[0][2])
    opened.fill("#cost-weight", "1e9")
    opened.one("#allowed input[value=code-15b]").click()
    opened.ask(PROMPT)
    assert service.requests[-1][1]["policy"] == {
        "output_tokens": 300,
        "cost_weight": 1e9,
        "models": [m for m in router.models if m != "code-15b"],
    }
    rows = opened.cells("prompt", "Predicted scores")
    assert rows[0][0] == "small-3b, chosen"  # the cheapest
    for cheap in ("small-3b", "language-12b"):
        opened.one(f"#allowed input[value={cheap}]").click()
    opened.ask(PROMPT)
    assert opened.words(".chosen h2") == ["Chosenmaths-13b"]
    rows = opened.cells("prompt", "Predicted scores")
    assert "maths-13b, chosen" in [row[0] for row in rows]
    assert "code-15b not allowed" in [row[0] for row in rows]
    n = len(service.requests)
    opened.fill("#cost-weight", "much")
    assert "is “much”, expected a number from 0" in opened.ask(PROMPT, "error")
    opened.fill("#cost-weight", "")
    for box in opened.all("#allowed input:checked"):
        box.click()
    assert "Let at least one model be chosen" in opened.ask(PROMPT, "error")
    assert len(service.requests) == n
    assert "λ" not in opened.text("#prompt-form")  # in words, no symbol of the paper


def test_rule_is_sent(opened, service):
    opened.one("#prompt-form summary").click()
    opened.one("#rule option[value=s3]").click()
    assert "rule s3" in opened.ask(PROMPT)
    assert service.requests[-1][1]["policy"] == {"rule": "s3"}


def test_button_sends_and_an_empty_prompt_is_not_sent(opened, service):
    opened.one("#prompt-form .primary").click()
    assert "Type a prompt first." in opened.answered("prompt", "error")
    assert opened.words("#status") == ["Not answered. Type a prompt first."]
    assert opened.all(".error button") == []
    assert service.requests == []
    opened.fill("#prompt", PROMPT)
    opened.one("#prompt-form .primary").click()
    opened.answered("prompt")


def test_a_prompt_that_lost_its_end_is_flagged(opened):
    assert "its end did not count" in opened.ask("long " * 1000)
    assert "its end did not count" not in opened.ask(PROMPT)


def test_a_question_can_be_cancelled_and_a_later_one_replaces_it(opened, service):
    service.delay_s = 1.0
    opened.fill("#prompt", "first")
    opened.press("CONTROL", "ENTER")
    opened.wait(lambda: opened.one("#prompt-form .cancel").is_displayed())
    assert opened.one("#prompt-answer").get_attribute("aria-busy") == "true"
    opened.one("#prompt-form .cancel").click()
    opened.wait(lambda: opened.words("#status") == ["Cancelled."])
    assert not opened.one("#prompt-form .cancel").is_displayed()
    assert opened.all("#prompt-answer .chosen, #prompt-answer .error") == []
    assert opened.cells("prompt", "Models")  # what stood there before
    opened.fill("#prompt", "second")
    opened.press("CONTROL", "ENTER")
    opened.wait(lambda: len(service.requests) == 2)
    service.delay_s = 0.0
    opened.fill("#prompt", PROMPT)
    opened.press("CONTROL", "ENTER")
    opened.answered("prompt")
    shown = opened.text(".chosen")
    time.sleep(1.1)  # the second would have come by now
    assert opened.text(".chosen") == shown
    assert opened.complaints() == []


# --- A task --------------------------------------------------------------------------------------


def test_a_task_gets_one_model_with_its_interval(opened, service, router, demo):
    prompts = demo.new_task[:40]
    found = router.choose(prompts, embeddings=embed(prompts))
    answer = opened.choose("\n".join(prompts) + "\n\n")
    assert service.requests[-1][1] == {"prompts": prompts, "router": "default", "score": "auto"}
    assert opened.text("#prompts-count") == "40 prompts."
    assert opened.words("#task-answer .chosen h2") == [f"Chosen for 40 prompts{found.model}"]
    low, high = (100 * bound for bound in found.interval)
    assert f"{fixed(low, 1)} – {fixed(high, 1)} %" in answer
    assert f"{fixed(100 * found.expected_accuracy, 1)} %" in answer
    rows = opened.cells("task", "Models")
    names = [row[0].removesuffix(", chosen") for row in rows]
    assert names == [found.models[m] for m in np.argsort(-found.auto, kind="stable")]
    for name, (_, estimate, standing, price) in zip(names, rows, strict=True):
        m = found.models.index(name)
        assert estimate == f"{fixed(100 * found.auto[m], 1)} % ± {fixed(100 * found.auto_sd[m], 1)}"
        assert standing == f"{fixed(100 * found.standing[m], 1)} %"
        assert price == " / ".join(f"{fixed(p, 2)}" for p in found.prices[m])
    assert "Far from the benchmark" not in answer
    assert opened.words("#status")[0].startswith(f"{found.model} is chosen. ")
    assert opened.complaints() == []


def test_another_score_and_a_task_far_away(opened, service, router):
    opened.one("#task-tab").click()
    opened.one("#score option[value=s3]").click()
    answer = opened.choose(f"{FAR}\n{FAR[::-1]}")
    assert service.requests[-1][1]["score"] == "s3"
    found = router.choose([FAR, FAR[::-1]], embeddings=embed([FAR, FAR[::-1]]), score="s3")
    assert found.warning is not None
    assert "Far from the benchmark." in answer
    assert found.warning[1:] in answer
    s3 = opened.cells("task", "Models")[0][1]
    assert s3 == fixed(found.s3.max())


FILES = [
    ("a.txt", 'one\r\n\r\ntwo, "2"\n'),
    ("a.jsonl", '{"prompt": "one", "id": 7}\n\n{"prompt": "two, \\"2\\""}'),
    ("a.JSONL", '\ufeff{"prompt": "one"}\n"two, \\"2\\""\n'),
    ("a.csv", 'id,prompt\r\n7,one\r\n8,"two, ""2"""\r\n'),
    ("a.csv", 'prompt,id\n"one",\n"two, ""2""",'),
]


def test_files_of_prompts(opened, service, tmp_path):
    for name, text in FILES:
        (tmp_path / name).write_bytes(text.encode())
        opened.load(tmp_path / name)
        assert opened.text("#dropped").startswith(f"{name}: 2 prompts\none")
        assert not opened.one("#prompts").is_displayed()
        assert opened.focused() == "primary"
        opened.choose()
        assert service.requests[-1][1]["prompts"] == ["one", 'two, "2"'], text
        assert "labels" not in service.requests[-1][1]
        opened.one("#dropped button").click()
        assert opened.focused() == "prompts"
        assert "choose a file first" in opened.choose(what="error")


def test_columns_named_as_models_are_labels(opened, service, router, demo, tmp_path):
    prompts = demo.new_task[:30]
    with (tmp_path / "task.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "note", *router.models])
        for i, prompt in enumerate(prompts):
            values = demo.labels[i].astype(int).tolist() if i < 12 else [""] * 6
            writer.writerow([prompt + "\nin two lines", "x", *values])
    opened.load(tmp_path / "task.csv")
    assert "task.csv: 30 prompts, 12 with labels" in opened.text("#dropped")
    answer = opened.choose()
    body = service.requests[-1][1]
    assert body["prompts"][0] == prompts[0] + "\nin two lines"
    assert body["labels"] == [
        dict(zip(router.models, row, strict=True)) for row in demo.labels[:12].tolist()
    ]
    assert re.search(r"Prompts with labels\s+12", answer)

    lines = [{"prompt": "a", "code-15b": True}, {"prompt": "b"}, {"prompt": "c", "small-3b": None}]
    (tmp_path / "task.jsonl").write_text("\n".join(map(json.dumps, lines)))
    opened.load(tmp_path / "task.jsonl")
    opened.choose()
    assert service.requests[-1][1]["labels"] == [{"code-15b": 1}]


BAD_FILES = [
    ("a.parquet", b"PAR1", "Found “a.parquet”, expected a .txt, .jsonl or .csv file."),
    ("a.txt", b"caf\xe9", "“a.txt” is not UTF-8 text."),
    ("a.jsonl", b'{"prompt": "x"}\n{"prompt"', "Line 2 is not JSON."),
    ("a.jsonl", b'{"prompt": "x"}\n[1]', "Line 2 has no text as “prompt”."),
    ("a.jsonl", b"null", "Line 1 has no text as “prompt”."),
    ("a.jsonl", b'{"text": "x"}', "Line 1 has no text as “prompt”."),
    ("a.csv", b"text,id\nx,1", "Found the columns “text”, “id”, expected one named “prompt”."),
    ("a.csv", b"", "Found the columns nothing, expected one named “prompt”."),
    ("a.csv", b"prompt,id\nx,1\ny", "Row 2 has 1 cell, the header has 2."),
    ("a.csv", b'prompt\nx\n"y', "Row 2 has a quote that is not closed"),
    ("a.csv", b'prompt\nx\n"y"z\n', "Row 2 has a quote that is not closed, or text behind"),
    ("a.csv", b"prompt,code-15b\nx,0.5", "Row 1 has “0.5” for code-15b, expected 1, 0 or"),
]


def test_bad_files_are_refused_in_words(opened, service, tmp_path):
    for name, content, message in BAD_FILES:
        (tmp_path / name).write_bytes(content)
        opened.load(tmp_path / name)
        assert message in opened.text("#task-answer .error")
        assert message in opened.words("#status")[0]
        assert opened.one("#prompts").is_displayed()
    assert service.requests == []
    assert opened.complaints() == []


def test_pasted_json_lines_are_read(opened, service):
    opened.choose('{"prompt": "one\\nmore"}\n{"prompt": "two"}')
    assert service.requests[-1][1]["prompts"] == ["one\nmore", "two"]
    opened.choose("{not json}\n[1, 2]")
    assert service.requests[-1][1]["prompts"] == ["{not json}", "[1, 2]"]


def test_at_most_5000_prompts_are_sent(opened, service):
    answer = opened.choose("\n".join(f"prompt {i}" for i in range(5001)), "error")
    assert "Found 5,001 prompts, at most 5,000 can be sent." in answer
    assert service.requests == []
    opened.choose("\n".join(f"prompt {i}" for i in range(5000)))
    assert len(service.requests[-1][1]["prompts"]) == 5000


def test_a_dropped_file_becomes_the_task(opened, service):
    script = """
        const data = new DataTransfer();
        data.items.add(new File([arguments[1]], "dropped.txt"));
        const kind = {dataTransfer: data, bubbles: true, cancelable: true};
        const event = new DragEvent(arguments[0], kind);
        document.querySelector("h1").dispatchEvent(event);
        return [event.defaultPrevented, document.getElementById("task-form").className]
    """
    assert opened.run(script, "dragover", "") == [True, "dropping"]
    assert opened.run(script, "drop", "one\ntwo") == [True, ""]
    opened.wait(lambda: "dropped.txt: 2 prompts" in opened.text("#dropped"))
    assert opened.one("#task-panel").is_displayed()
    opened.choose()
    assert service.requests[-1][1]["prompts"] == ["one", "two"]


# --- Several routers, keys, errors ---------------------------------------------------------------


def test_one_of_several_routers_is_asked(browser, router, demo):
    table = replace(demo.table, models=tuple(f"other-{m}" for m in demo.table.models))
    other = Router.fit(table, embeddings=embed(table.prompts))
    service = FakeService({"default": router, "other": other})
    try:
        browser.open(service.url)
        assert [option.text for option in browser.all("#router option")] == ["default", "other"]
        browser.ask(PROMPT)
        browser.one("#router option[value=other]").click()
        assert browser.all(".chosen") == []  # it was the other router's
        assert browser.cells("prompt", "Models")[0][0].startswith("other-")
        browser.one("#prompt-form summary").click()
        browser.one("#allowed label:first-child input").click()
        browser.ask(PROMPT)
        body = service.requests[-1][1]
        assert body["router"] == "other"
        assert body["policy"]["models"] == list(other.models[1:])
        browser.choose("one\ntwo")
        assert service.requests[-1][1]["router"] == "other"
    finally:
        service.close()


def test_models_are_read_again_when_the_router_was_replaced(opened, service, router):
    smaller = Router.fit(router.table, embeddings=embed(router.table.prompts))
    smaller.remove(models=["general-70b"])
    opened.ask(PROMPT)
    assert len(opened.all("#allowed input")) == 6
    service.routers["default"], service.versions["default"] = smaller, "ba9876543210"
    assert "version ba9876543210" in opened.ask(PROMPT)
    assert len(opened.all("#allowed input")) == 5
    assert opened.text("#about").startswith("5 models")


def test_a_key_is_asked_for_kept_and_forgotten(browser, service):
    service.key = "correct-horse"
    browser.open(service.url)
    browser.wait(lambda: browser.one("#key-form").is_displayed())
    assert browser.text("#key-title") == "This service asks for an API key"
    assert browser.focused() == "key"
    assert browser.one("#key").get_attribute("type") == "password"
    for wrong, complaint in [
        ("clé", "A key has letters, digits and signs of ASCII"),
        ("wrong", "The service did not accept this API key"),
    ]:
        browser.fill("#key", wrong)
        browser.press("ENTER")
        browser.wait(lambda said=complaint: said in browser.text("#key-title"))
        assert complaint in browser.words("#status")[0]
    browser.fill("#key", "correct-horse")
    browser.press("ENTER")
    browser.wait(lambda: browser.text("#about").startswith("6 models"))
    assert not browser.one("#key-form").is_displayed()
    assert browser.focused() == "prompt"
    browser.ask(PROMPT)
    browser.driver.refresh()
    browser.wait(lambda: browser.text("#about").startswith("6 models"))
    assert browser.run("return localStorage.length + document.cookie.length") == 0

    service.key = "another"  # changed meanwhile: what was asked is asked again with the new one
    browser.fill("#prompt", PROMPT)
    browser.press("CONTROL", "ENTER")
    browser.wait(lambda: browser.one("#key-form").is_displayed())
    assert browser.words("#status") == ["The service did not accept this API key"]
    assert browser.run("return sessionStorage.length") == 0
    browser.fill("#key", "another")
    browser.press("ENTER")
    browser.answered("prompt")
    browser.one("#forget").click()
    assert browser.run("return sessionStorage.length") == 0
    assert not browser.one("#forget").is_displayed()
    browser.fill("#prompt", PROMPT)
    browser.press("CONTROL", "ENTER")
    browser.wait(lambda: browser.one("#key-form").is_displayed())
    assert browser.complaints() == []


REFUSALS = [
    ((429, {"Retry-After": "1"}, {}), "The service is busy. Try again in 1 second.", True),
    ((429, {}, {}), "The service is busy. Try again shortly.", True),
    ((413, {}, {"error": {"message": "too long"}}), "too much at once. Too long.", False),
    ((422, {}, {"error": {"message": "no thresholds"}}), "No thresholds.", False),
    ((503, {}, {"error": {"message": "draining"}}), "not ready yet. Draining.", True),
    ((500, {}, b"<b>oops</b>"), "The service failed. It answered with status 500.", True),
    ((200, {}, b"<b>oops</b>"), "What was answered is not JSON.", True),
    ((422, {}, {"error": {"message": INERT}}), INERT, False),
]


def test_errors_are_told_in_words(opened, service):
    for refusal, message, again in REFUSALS:
        service.refusal = refusal
        assert message in opened.ask(PROMPT, "error")
        assert opened.words("#status") == opened.words("#prompt-answer .error p")
        assert len(opened.all("#prompt-answer .error button")) == int(again)
        service.refusal = None
        for button in opened.all("#prompt-answer .error button"):
            button.click()
            opened.answered("prompt")
    service.refusal = (503, {}, {})
    assert "not ready" in opened.choose("one", "error")
    assert opened.complaints() == []


def test_a_service_that_is_gone_is_told_and_can_be_asked_again(browser, router):
    service = FakeService({"default": router})
    browser.open(service.url)
    service.close()
    assert "The service cannot be reached." in browser.ask(PROMPT, "error")
    assert browser.text(".error button") == "Try again"


# --- Text from others ----------------------------------------------------------------------------


def test_names_and_prompts_with_markup_stay_text(browser, demo):
    evil = replace(
        demo.table,
        models=tuple(f"{INERT}{m}" for m in demo.table.models),
        datasets=tuple(f"{INERT}{d}" for d in demo.table.datasets),
        prompts=[f"{p}<script>window.pwned=2</script>{INERT}" for p in demo.table.prompts],
    )
    name = f"</script>{INERT}"
    service = FakeService({name: Router.fit(evil, embeddings=embed(evil.prompts)), "b": None})
    service.routers.pop("b")
    try:
        browser.open(service.url)
        answer = browser.ask(INERT)
        assert INERT in answer
        browser.one("#prompt-form summary").click()
        task = browser.choose(f"{INERT}\n{INERT}")
        assert INERT in task
        inside = "#prompt-answer, #task-answer, #allowed, #router, #about, #status, #dropped"
        assert (
            browser.run(
                "return [...document.querySelectorAll(arguments[0])].reduce("
                "(n, e) => n + e.querySelectorAll('img, script, iframe, object').length, 0)",
                inside,
            )
            == 0
        )
        assert browser.run("return window.pwned ?? null") is None
        attributes = browser.run(
            "return [...document.querySelectorAll('*')].flatMap((e) => [...e.attributes])"
            ".map((a) => a.name).filter((n) => n.startsWith('on') || n === 'srcdoc')"
        )
        assert attributes == []
        assert browser.complaints() == []
    finally:
        service.close()


def test_policy_is_in_force(opened):
    assert (
        opened.run(
            "try { document.body.innerHTML = '<b>x</b>'; return 'written' }"
            "catch (error) { return error.name }"
        )
        == "TypeError"
    )
    opened.run(
        "const made = document.createElement('img'); made.src = 'http://127.0.0.1:9/x.png';"
        "document.body.append(made)"
    )
    assert opened.wait(lambda: [m for m in opened.complaints() if "Content Security Policy" in m])


# --- Everybody's page ----------------------------------------------------------------------------

NAMED = {
    "button", "checkbox", "combobox", "link", "listbox", "option", "tab", "tablist", "tabpanel",
    "textbox", "heading", "table", "DisclosureTriangle",
}  # fmt: skip


TABLES = """
    return [...document.querySelectorAll("table")].map((t) => ({
      caption: t.caption?.textContent ?? "",
      heads: [...t.tHead.rows[0].cells].map((c) => [c.localName, c.scope, c.textContent]),
      rows: [...t.tBodies[0].rows].map((r) => [...r.cells].map((c) => [c.localName, c.scope])),
    }))
"""


def nodes(browser: Browser) -> list[dict[str, Any]]:
    """Nodes of the accessibility tree that are told: role, name, properties."""
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [
        {
            "role": node["role"]["value"],
            "name": node.get("name", {}).get("value", ""),
            "description": node.get("description", {}).get("value", ""),
            **{p["name"]: p["value"].get("value") for p in node.get("properties", [])},
        }
        for node in tree
        if not node["ignored"]
    ]


@pytest.fixture
def states(opened, service, demo, tmp_path) -> Callable[[], Iterator[str]]:
    """Bring the page into one state after the other, and say which."""

    def walk() -> Iterator[str]:
        yield "opened"
        opened.one("#prompt-form summary").click()
        opened.fill("#output-tokens", "300")
        opened.one("#allowed label:first-child input").click()
        opened.ask(PROMPT)
        yield "a prompt, its costs, and a model that is not allowed"
        opened.ask(FAR)
        yield "a prompt far away"
        opened.choose("\n".join(demo.new_task))
        yield "a task"
        opened.choose(FAR)
        yield "a task far away"
        (tmp_path / "a.txt").write_text("one\ntwo\n")
        opened.load(tmp_path / "a.txt")
        yield "a file"
        service.refusal = (503, {}, {})
        opened.choose(what="error")
        yield "an error"
        service.refusal, service.key = None, "key"
        opened.one("#task-form .primary").click()
        opened.wait(lambda: opened.one("#key-form").is_displayed())
        yield "a key is asked for"

    return walk


def test_everything_is_told_to_who_does_not_see(opened, states):
    seen, n_tables = set(), 0
    for state in states():
        found = nodes(opened)
        assert [n for n in found if n["role"] in NAMED and not n["name"]] == [], state
        seen |= {n["role"] for n in found}
        (title,) = [n for n in found if n["role"] == "RootWebArea"]
        assert title["name"] == "benchrouter"
        assert {"main", "banner", "contentinfo"} <= {n["role"] for n in found}, state
        levels = [n["level"] for n in found if n["role"] == "heading"]
        assert levels[0] == 1 and levels.count(1) == 1, state
        assert all(b - a <= 1 for a, b in pairwise(levels)), (state, levels)
        tables = opened.run(TABLES)
        for table in tables:
            assert table["caption"], state
            assert all(h[:2] == ["th", "col"] and h[2] for h in table["heads"]), state
            for row in table["rows"]:
                assert row[0] == ["th", "row"] and len(row) == len(table["heads"]), state
        n_tables += len(tables)
    assert seen >= {"tab", "tabpanel", "textbox", "checkbox", "combobox", "table", "rowheader"}
    assert n_tables >= 8
    described = {n["name"]: n["description"] for n in nodes(opened) if n["role"] == "textbox"}
    assert described["API key"].startswith("Kept in this tab")


FROM_THE_TOP = "const h1 = document.querySelector('h1'); h1.tabIndex = -1; h1.focus()"


def test_tab_goes_through_every_control_in_order_and_out_again(opened):
    opened.ask(PROMPT)
    opened.one("#prompt-form summary").click()
    opened.run(FROM_THE_TOP)
    order = []
    for _ in range(60):
        opened.press("TAB")
        order.append(
            opened.run(
                "const e = document.activeElement; return e === document.body ? 'out' : "
                "e.id || e.value || e.className || e.localName"
            )
        )
        if order[-1] == "out" or (order[-1] == order[0] and len(order) > 1):
            break
    boxes = [box.get_attribute("value") for box in opened.all("#allowed input")]
    expected = ["prompt-tab", "prompt", "primary", "summary", "rule", "output-tokens"]
    expected += ["cost-weight", *boxes, "a"]
    assert order[: len(expected)] == expected
    assert order[len(expected) :] in ([], ["out"], ["prompt-tab"])  # no trap
    opened.run("document.getElementById('prompt').focus()")
    opened.press("SHIFT", "TAB")
    assert opened.focused() == "prompt-tab"


def test_arrows_change_tabs_and_the_address_names_the_task(opened, service):
    opened.one("#prompt-tab").send_keys("")
    opened.run("document.getElementById('prompt-tab').focus()")
    for key, tab in [
        ("ARROW_RIGHT", "task"),
        ("ARROW_RIGHT", "prompt"),
        ("ARROW_LEFT", "task"),
        ("HOME", "prompt"),
        ("END", "task"),
    ]:
        opened.press(key)
        assert opened.focused() == f"{tab}-tab"
        selected = opened.run(
            "return [...document.querySelectorAll('[role=tab]')]"
            ".filter((t) => t.ariaSelected === 'true' && t.tabIndex === 0).map((t) => t.id)"
        )
        assert selected == [f"{tab}-tab"]
        assert opened.one(f"#{tab}-panel").is_displayed()
        assert len([p for p in opened.all("[role=tabpanel]") if p.is_displayed()]) == 1
    assert opened.driver.current_url == f"{service.url}#task"
    opened.open(f"{service.url}#task")
    assert opened.one("#task-panel").is_displayed()


def test_focus_is_seen_on_every_control(opened):
    opened.ask(PROMPT)
    opened.one("#prompt-form summary").click()
    opened.run(FROM_THE_TOP)
    for _ in range(len(opened.all("#allowed input")) + 8):
        opened.press("TAB")
        outline = opened.run(
            "const s = getComputedStyle(document.activeElement);"
            "return [s.outlineStyle, parseFloat(s.outlineWidth), document.activeElement.localName]"
        )
        assert outline[0] == "solid" and outline[1] >= 2, outline


COLOURS = """
    const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1})
      .getContext("2d", {willReadFrequently: true});
    const rgba = (colour) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255);
    };
    const found = [];
    for (const element of document.querySelectorAll("body, body *")) {
      const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
      if (!own && !element.matches("input, textarea, select")) continue;
      if (!element.checkVisibility() || element.closest(".unseen, noscript")) continue;
      let behind = element;
      while (rgba(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
      const style = getComputedStyle(element);
      found.push([element.outerHTML.slice(0, 80), rgba(style.color),
                  rgba(getComputedStyle(behind).backgroundColor)]);
    }
    return found
"""


OUTSIDE = """
    return [...document.querySelectorAll("main *")]
      .filter((e) => e.checkVisibility() && !e.closest(".unseen"))
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
      .map((e) => e.outerHTML.slice(0, 80))
"""


def test_all_text_can_be_read_in_both_themes_at_every_width(opened, states):
    n_texts = 0
    for state in states():
        for scheme in ("light", "dark"):
            opened.theme(scheme)
            colours = opened.run(COLOURS)
            for what, colour, behind in colours:
                assert colour[3] == behind[3] == 1, what
                assert contrast(tuple(colour), tuple(behind)) >= 4.5, (state, scheme, what)
            assert (luminance(tuple(colours[0][2])) < 0.1) == (scheme == "dark")
            n_texts += len(colours)
        for width in (320, 360, 768, 1280, 2560):
            opened.width(width)
            assert opened.run("return document.documentElement.scrollWidth") <= width, state
            assert opened.run(OUTSIDE) == [], (state, width)
        opened.width(1280)
    assert n_texts > 600


def test_long_names_many_models_and_graded_scores_fit(browser, demo):
    rng = np.random.default_rng(0)
    shape = (len(demo.table.prompts), 40)
    table = replace(
        demo.table,
        scores=np.where(rng.random(shape) < 0.1, np.nan, rng.random(shape)).astype(np.float32),
        models=tuple(f"organisation/a-model-of-a-long-name-{i}b-instruct-turbo" for i in range(40)),
        datasets=tuple(f"{d}:subject={'x' * 60}" for d in demo.table.datasets),
        prompts=[f"{p} " * 20 for p in demo.table.prompts],
        params_b=np.full(40, np.nan),
        prices=np.full((40, 2), np.nan),
    )
    service = FakeService({"r" * 80: Router.fit(table, embeddings=embed(demo.table.prompts))})
    service.routers["other"] = next(iter(service.routers.values()))
    service.versions["other"] = "0"
    try:
        browser.open(service.url, width=360)
        browser.ask(PROMPT)
        overflow = "return document.documentElement.scrollWidth - innerWidth"
        assert browser.run(overflow) <= 0
        rows = "#prompt-answer section:has(.track) tbody tr"
        assert len([row for row in browser.all(rows) if row.is_displayed()]) in (12, 13)
        browser.one("#prompt-answer section:has(.track) .more").click()
        assert len([row for row in browser.all(rows) if row.is_displayed()]) == 40
        assert "Best" in browser.text("#prompt-answer .right")
        browser.all("#prompt-answer .right button")[0].click()
        browser.all("#prompt-answer .record summary")[0].click()
        assert browser.text("#prompt-answer .record summary").splitlines()[0] == "The whole prompt"
        assert browser.run(overflow) <= 0
        browser.choose("one\ntwo")
        assert browser.run(overflow) <= 0
        assert browser.complaints() == []
    finally:
        service.close()


def test_nothing_moves_where_the_reader_wants_no_motion(opened):
    opened.theme("light", motion="no-preference")
    opened.ask(PROMPT)
    moves = (
        "return [...document.querySelectorAll('*')].map((e) => getComputedStyle(e)).filter((s) => "
        "s.animationName !== 'none' || parseFloat(s.transitionDuration) > 0).length"
    )
    assert opened.run(moves) > 0
    opened.theme("light", motion="reduce")
    assert opened.run(moves) == 0


def test_an_answer_below_the_fold_is_scrolled_to(browser, service):
    browser.open(service.url, width=360)
    browser.ask(PROMPT)
    top = browser.run("return document.querySelector('.chosen').getBoundingClientRect().top")
    assert 0 <= top < 450
    assert browser.focused() == "prompt"


# --- In front of the real service ----------------------------------------------------------------


@pytest.fixture
def real_service(tmp_path) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn")
    app = pytest.importorskip("benchrouter.serving.service.app")
    from served import write_router

    from benchrouter.serving import Engine
    from benchrouter.serving.service.settings import Settings

    with Engine(write_router(tmp_path)) as engine, socket.create_server(("127.0.0.1", 0)) as bound:
        served = app.make_app(engine, Settings(("a-key",), max_body_bytes=9000))
        server = uvicorn.Server(uvicorn.Config(served, log_level="error"))
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


def test_the_real_service_answers_the_page(browser, real_service):
    browser.open(real_service)
    browser.wait(lambda: browser.one("#key-form").is_displayed())
    assert browser.focused() == "key"
    browser.fill("#key", "a-key")
    browser.press("ENTER")
    browser.wait(lambda: browser.text("#about").startswith("3 models"))
    answer = browser.ask("w1 w2 w3 w4")
    assert re.search(r"version [0-9a-f]{12} · rule auto", answer)
    assert "limit 0." in answer
    (chosen,) = browser.words(".chosen h2")
    scores = browser.cells("prompt", "Predicted scores")
    assert re.fullmatch(r"\$0\.0\d+", scores[0][2])
    browser.one("#prompt-form summary").click()
    model = re.sub("^(Chosen|Fallback(, as evidence is too thin)?)", "", chosen)
    browser.one(f"#allowed input[value='{model}']").click()
    browser.ask("w1 w2 w3 w4")
    assert model not in browser.words(".chosen h2")[0]
    assert f"{model} not allowed" in [row[0] for row in browser.cells("prompt", "Predicted")]
    assert "80 % interval" in browser.choose("w1 w2 w3\nw4 w5 w6\nw7")
    assert len(browser.cells("task", "Models")) == 3
    assert "That is too much at once." in browser.choose("w1 " * 3000, "error")
    assert browser.complaints() == []
