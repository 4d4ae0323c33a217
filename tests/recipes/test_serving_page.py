"""The web page in a real browser: a chat that streams and stops, probabilities on hover, evidence behind a class."""

from pathlib import Path

import pytest
from serving_tools import NAMED, metric, running, save_chat_model, save_encoder, wait_until
from tiny_models import gpt, gpt_tokenizer, save
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from lm_recipes.serving.app import create_app
from lm_recipes.serving.limits import Settings

playwright = pytest.importorskip("playwright.sync_api", reason="a development dependency")
expect = playwright.expect  # its own wait_for_function evaluates strings, which the page's policy forbids
CHROMIUM = next((path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(path).exists()), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in /usr/bin")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_default_timeout(10_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if "127.0.0.1" not in request.url else None)
    page.complaints = complaints
    yield page
    page.close()


def visit(page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("#send:not([disabled])")  # it knows its models


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    directory = save_chat_model(tmp_path_factory.mktemp("m") / "chat", context=5000)
    app = create_app(directory, Settings(max_new_tokens=4000))
    app.state.served.ends["chat"].clear()  # it speaks until it is stopped
    with running(app) as address:
        yield address


def test_a_chat_streams_and_shows_what_else_was_likely(page, address):
    visit(page, address)
    page.select_option("#strategy", "greedy")
    assert page.locator("#temperature-label").is_hidden()
    page.fill("#tokens", "24")
    page.fill("#text", "how is the knee?")
    page.press("#text", "Enter")
    page.wait_for_selector("#send:not([disabled])")
    assert page.locator(".turn.user").inner_text() == "how is the knee?"
    tokens = page.locator(".turn.assistant .token[tabindex]")
    assert tokens.count() > 3
    tokens.nth(1).focus()  # as hovering does; a token may be a line break, which no mouse finds
    shown = page.locator("#likely")
    assert shown.is_visible()
    assert shown.locator(".bar").count() >= 8
    assert shown.locator(".chosen").count() >= 1
    assert "24 tokens" in page.locator("#status").inner_text()
    page.fill("#text", "and the dog?")
    page.click("#send")
    page.wait_for_selector("#send:not([disabled])")
    assert page.locator(".turn").count() == 4
    page.click("#reset")
    assert page.locator(".turn").count() == 0
    assert page.complaints == []


def test_stop_ends_the_answer_and_frees_the_server(page, address):
    visit(page, address)
    page.fill("#tokens", "2400")
    page.fill("#text", "tell me a long story")
    page.click("#send")
    page.wait_for_selector(".turn.assistant .token")
    page.click("#stop")
    page.wait_for_selector("#send:not([disabled])")
    wait_until(lambda: metric(address, "lm_recipes_running") == 0, seconds=3)
    assert page.locator(".turn.assistant").inner_text()
    assert page.locator("#error").inner_text() == ""


def test_what_the_server_refuses_stands_on_the_page(page, address):
    visit(page, address)
    page.fill("#temperature", "-1")
    page.fill("#text", "hello")
    page.click("#send")
    expect(page.locator("#error")).to_contain_text("temperature")
    assert page.input_value("#text") == "hello"


def test_of_a_long_conversation_the_oldest_turns_are_forgotten(page, tmp_path):
    app = create_app(save_chat_model(tmp_path / "chat", context=160))
    app.state.served.ends["chat"].clear()
    with running(app) as address:
        visit(page, address)
        page.fill("#tokens", "30")
        for exchange in range(1, 5):
            page.fill("#text", "how is the knee?")
            page.press("#text", "Enter")
            page.wait_for_selector("#send:not([disabled])")
            assert page.locator(".turn").count() == 2 * exchange
    assert page.locator("#error").inner_text() == ""
    forgotten = page.locator(".turn").evaluate_all("turns => turns.map(turn => turn.classList.contains('forgotten'))")
    assert forgotten[:2] == [True, True]
    assert not any(forgotten[-3:])


def test_markup_in_a_text_is_text(page, address):
    visit(page, address)
    page.fill("#tokens", "2")
    page.fill("#text", "<img src=x onerror=alert(1)><b>bold</b>")
    page.click("#send")
    page.wait_for_selector("#send:not([disabled])")
    assert page.locator(".turn.user b, .turn.user img").count() == 0
    assert page.complaints == []


def test_a_model_without_chats_goes_on_with_a_text(page, tmp_path):
    with running(create_app(save(tmp_path / "plain", gpt("nanochat"), gpt_tokenizer()))) as address:
        visit(page, address)
        expect(page).to_have_title("plain")
        page.fill("#tokens", "12")
        page.fill("#text", "the quick brown")
        page.click("#send")
        page.wait_for_selector("#send:not([disabled])")
        assert page.locator(".turn.assistant .token").count() > 1
        assert page.complaints == []


def test_a_key_is_asked_for_once(page, tmp_path):
    directory = save_chat_model(tmp_path / "chat")
    with running(create_app(directory, Settings(api_key="s3cret"))) as address:
        page.goto(address)
        page.wait_for_selector("#key-label:not([hidden])")
        assert "wants a key" in page.locator("#error").inner_text()
        page.fill("#key", "s3cret")
        page.press("#key", "Tab")
        expect(page).to_have_title("chat")


def test_a_class_is_shown_with_its_evidence(page, tmp_path):
    directory = save_encoder(tmp_path / "sentiment", AutoModelForSequenceClassification, **NAMED)
    with running(create_app(directory)) as address:
        visit(page, address)
        expect(page).to_have_title("sentiment")
        page.fill("#text", "the quick \U0001f98a fox <b>barks</b>")
        page.click("#send")
        page.wait_for_selector(".evidence mark")
        assert page.locator("#answer .bar").count() == 3
        marks = page.locator(".evidence mark")
        assert marks.all_inner_texts()[:4] == ["the", "quick", "\U0001f98a", "fox"]
        assert page.locator(".evidence").inner_text() == "the quick \U0001f98a fox <b>barks</b>"
        assert "points" in marks.first.get_attribute("title")
        colours = marks.evaluate_all("marks => marks.map(mark => getComputedStyle(mark).backgroundColor)")
        assert len(set(colours)) > 1
        assert page.complaints == []


def test_tags_are_shown_in_the_text(page, tmp_path):
    names = {0: "O", 1: "B-place", 2: "I-place"}
    with running(
        create_app(save_encoder(tmp_path / "tags", AutoModelForTokenClassification, id2label=names))
    ) as address:
        visit(page, address)
        expect(page).to_have_title("tags")
        page.fill("#text", "paris is the capital of france; rome is the capital of italy.")
        page.click("#send")
        page.wait_for_selector("#answer table", state="attached")
        assert page.locator("#answer tr").count() == page.locator(".evidence mark").count()
        assert page.complaints == []


def test_the_api_is_described_without_help_from_elsewhere(page, address):
    page.goto(f"{address}/docs")
    page.wait_for_selector("h2")
    assert "POST /v1/chat/completions" in page.locator("#paths").inner_text()
    assert page.locator("code", has_text="repetition_penalty").count() >= 2
    assert page.complaints == []
