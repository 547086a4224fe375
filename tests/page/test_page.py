"""The page speaks: a real browser, a real server, the demo voice."""

import base64
import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from page.conftest import QUEUE, SLOTS
from page.helpers import RATE, ask, event, expect, fake_speech, open_stream, read_metrics, wait_for_metrics
from tools.browser import ROOT, Server

TEXT = "Hello there. How are you?"
LONG = "The road went on past the mill, and nobody on it was in a hurry. " * 12
AXE = ROOT / "build" / "axe" / "package" / "axe.min.js"


def speak(page: Any, text: str, seed: int | None = None) -> None:
    page.fill("#text", text)
    page.fill("#seed", "" if seed is None else str(seed))
    page.click("#speak")


def wait_until_done(page: Any, take: int = 1) -> None:
    expect(page.locator("#news")).to_contain_text(f"Take {take} is done", timeout=60_000)


def take(page: Any, number: int) -> Any:
    return page.locator(f"article[aria-label='Take {number}']")


def heard(page: Any) -> list[dict[str, Any]]:
    return page.evaluate("() => heard")


def wait_for_silence(page: Any) -> None:
    expect(page.locator(".play", has_text="Pause")).to_have_count(0, timeout=60_000)


def downloaded(page: Any, click: Any) -> tuple[str, bytes]:
    with page.expect_download() as info:
        click()
    return info.value.suggested_filename, Path(info.value.path()).read_bytes()


def test_sound_plays_in_order_and_whole_and_the_seed_replays_it(page: Any, server: Server):
    speak(page, TEXT, 5)
    wait_until_done(page)
    wait_for_silence(page)
    expected = ask(server, input=TEXT, voice="default", seed=5)
    pieces = heard(page)
    assert np.array_equal(np.concatenate([piece["samples"] for piece in pieces]), expected)
    for before, after in zip(pieces, pieces[1:], strict=False):
        assert after["when"] >= before["when"] + len(before["samples"]) / RATE - 1e-6
    assert page.evaluate("() => loudest") > 0.02

    first = take(page, 1)
    sentences = first.locator(".sentences button")
    expect(sentences).to_have_text(["Hello there.", "How are you?"])
    expect(first.locator(".numbers")).to_contain_text("First sound after")
    expect(first.locator(".numbers")).to_contain_text("Real-time factor")
    expect(first.locator(".legend")).to_contain_text("coarse")
    # A click goes to the sentence, and it is marked while it is spoken.
    sentences.nth(1).click()
    expect(sentences.nth(1)).to_have_attribute("aria-current", "true")
    expect(sentences.nth(0)).not_to_have_attribute("aria-current", "true")
    assert float(first.locator(".picture").get_attribute("aria-valuenow")) > 0.5
    wait_for_silence(page)
    n_second = sum(len(piece["samples"]) for piece in heard(page)[len(pieces) :])
    assert 0.3 * RATE < n_second < len(expected) - 0.5 * RATE

    # The picture has ink where the sound is.
    ink = page.evaluate(
        "() => { const c = document.querySelector('.take canvas'), d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return d.filter((v, i) => i % 4 === 3 && v > 0).length; }"
    )
    assert ink > 5000

    first.locator(".again").click()
    wait_until_done(page, 2)
    expect(take(page, 2).locator(".numbers")).to_contain_text("the same samples")
    first.locator(".another").click()
    wait_until_done(page, 3)
    assert take(page, 3).locator(".what").inner_text() != first.locator(".what").inner_text()

    name, content = downloaded(page, lambda: take(page, 2).locator(".download button").click())
    assert name == "barkfast-2-5.mp3"
    assert content[:1] == b"\xff" or content[:3] == b"ID3"
    take(page, 2).locator("select").select_option("wav")
    name, content = downloaded(page, lambda: take(page, 2).locator(".download button").click())
    assert name == "barkfast-2-5.wav"
    assert np.array_equal(np.frombuffer(content[44:], "<i2"), expected)


def test_a_voice_is_kept_on_the_server_and_speaks(page: Any, server: Server):
    speak(page, TEXT, 5)
    wait_until_done(page)
    page.click(".keep")
    expect(page.locator("#voice-name")).to_have_text("take-1-5")
    page.click("#voice")
    page.fill("#search", "take-1")
    expect(page.locator("#voice-list h3")).to_have_text(["Kept on this server"])
    page.keyboard.press("Escape")
    speak(page, "Hello.", 1)
    wait_until_done(page, 2)
    assert take(page, 2).locator(".what").inner_text().startswith("take-1-5")
    # The same name once more is refused: the voice is downloaded instead.
    name, content = downloaded(page, lambda: take(page, 1).locator(".keep").click())
    assert name == "take-1-5.npz"
    with np.load(io.BytesIO(content)) as voice:
        assert set(voice.files) == {"semantic_prompt", "coarse_prompt", "fine_prompt"}


def test_stop_ends_the_request_on_the_server(page: Any, server: Server):
    before = read_metrics(server)
    speak(page, LONG)
    expect(page.locator(".sentences button").first).to_be_visible(timeout=60_000)
    page.keyboard.press("Escape")
    expect(page.locator("#news")).to_have_text("Take 1 was stopped.")
    expect(page.locator("#stop")).to_be_disabled()
    cancelled = 'barkfast_requests_total{outcome="cancelled"}'
    after = wait_for_metrics(
        server, lambda now: now.get(cancelled, 0) > before.get(cancelled, 0) and not now["barkfast_requests_running"]
    )
    assert after[cancelled] == before.get(cancelled, 0) + 1
    assert after["barkfast_requests_running"] == after["barkfast_requests_waiting"] == 0
    # Nothing is scheduled any more, and what was made can be played and goes on.
    n_heard = len(heard(page))
    page.wait_for_timeout(300)
    assert len(heard(page)) == n_heard
    expect(page.locator(".play")).to_be_enabled()
    expect(page.locator(".resume")).to_have_text("Go on")


def test_the_queue_is_shown_and_a_full_server_is_asked_again(page: Any, server: Server):
    others = [open_stream(server, LONG) for _ in range(SLOTS + QUEUE - 1)]
    try:
        wait_for_metrics(
            server, lambda now: now["barkfast_requests_running"] + now["barkfast_requests_waiting"] == len(others)
        )
        speak(page, "Hello.", 1)
        expect(page.locator(".numbers")).to_contain_text("before you")
        ahead = int(re.search(r"(\d+) before you", page.locator(".numbers").inner_text()).group(1))
        # All of the others, while none has any sound yet.
        assert SLOTS <= ahead <= len(others)
        # With this page's request the server is full: a second page is told to wait.
        second = page.context.new_page()
        second.goto(server.url)
        second.locator("#about", has_text="demo").wait_for()
        speak(second, "Hello.", 1)
        expect(second.locator(".take .trouble")).to_contain_text("The server is full. Trying again in")
        expect(second.locator("#trouble")).to_have_text("The server is full.")
    finally:
        for other in others:
            other.close()
    wait_until_done(page)
    wait_until_done(second)
    expect(second.locator("#trouble")).to_have_text("")


def test_errors_are_said_in_words_and_recover(page: Any, server: Server):
    # An unknown voice: the server's words.
    voices = {"object": "list", "data": [{"id": "nobody", "name": "nobody", "language": None}]}
    page.route("**/v1/audio/voices", lambda route: route.fulfill(json=voices))
    page.reload()
    page.locator("#about", has_text="demo").wait_for()
    page.wait_for_timeout(200)
    page.click("#voice")
    page.fill("#search", "nobody")
    page.keyboard.press("Enter")
    speak(page, "Hello.", 1)
    expect(page.locator("#trouble")).to_contain_text("there is no voice 'nobody'")
    page.unroute("**/v1/audio/voices")
    page.reload()
    page.locator("#about", has_text="demo").wait_for()

    # The server is gone, and comes back.
    page.route("**/v1/audio/speech", lambda route: route.abort())
    speak(page, TEXT, 5)
    expect(page.locator("#trouble")).to_contain_text("cannot be reached")
    page.unroute("**/v1/audio/speech")
    # Now it breaks off after some sound.
    expected = ask(server, input=TEXT, voice="default", seed=5)
    some = event(type="speech.sentence", text="Hello there.", start_s=0.0) + event(
        type="speech.audio.delta", audio=base64.b64encode(expected[:8000].tobytes()).decode()
    )
    page.route(
        "**/v1/audio/speech", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=some)
    )
    page.click(".resume")
    expect(page.locator("#trouble")).to_contain_text("broke off")
    page.unroute("**/v1/audio/speech")
    page.click(".resume")
    wait_until_done(page)
    expect(page.locator("#trouble")).to_have_text("")
    expect(page.locator(".sentences button")).to_have_text(["Hello there.", "How are you?"])
    page.locator(".download select").select_option("pcm")
    _, content = downloaded(page, lambda: page.click(".download button"))
    assert np.array_equal(np.frombuffer(content, "<i2"), expected)

    # What the page refuses itself.
    speak(page, "   ")
    expect(page.locator("#trouble")).to_contain_text("nothing to say")
    page.fill("#text", TEXT)
    page.fill("#seed", "-1")
    page.click("#speak")
    expect(page.locator("#trouble")).to_contain_text("whole number")
    page.click("#tab-dialogue")
    page.fill("#dialogue", "hello")
    page.fill("#seed", "")
    page.click("#speak")
    expect(page.locator("#trouble")).to_contain_text("Line 1 has no speaker")


def test_a_page_that_is_opened_early_waits_for_the_model(page: Any):
    loading = {"error": {"message": "the model is being loaded", "code": "loading", "param": None, "type": "x"}}
    answers = [loading]

    def reply(route: Any) -> None:
        if answers:
            route.fulfill(status=503, json=answers.pop(), headers={"Retry-After": "1"})
        else:
            route.continue_()

    page.route("**/version", reply)
    page.reload()
    expect(page.locator("#about")).to_have_text("Loading the model …")
    expect(page.locator("#about")).to_contain_text("demo")


def test_a_wrong_file_is_refused(page: Any, tmp_path: Path):
    page.click("#tab-long")
    wrong = {
        "picture.png": (b"\x89PNG", "is no text file"),
        "latin.txt": (b"caf\xe9", "is not UTF-8"),
        "zeros.txt": (b"a\0b", "is no text file"),
        "empty.md": (b" \n", "is empty"),
    }
    for name, (content, words) in wrong.items():
        (tmp_path / name).write_bytes(content)
        page.set_input_files("#file", tmp_path / name)
        expect(page.locator("#trouble")).to_contain_text(f"{name} {words}")
    (tmp_path / "right.md").write_text("# A title\n\nSome *words*.", encoding="utf-8")
    page.set_input_files("#file", tmp_path / "right.md")
    expect(page.locator("#long")).to_have_value("# A title\n\nSome *words*.")
    expect(page.locator("#trouble")).to_have_text("")

    # The same by dropping it.
    drop = """(area, [name, text]) => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([text], name));
        area.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }"""
    page.locator("#drop").evaluate(drop, ["story.txt", "Once upon a time."])
    expect(page.locator("#long")).to_have_value("Once upon a time.")
    page.locator("#drop").evaluate(drop, ["song.mp3", "ID3"])
    expect(page.locator("#trouble")).to_contain_text("song.mp3 is no text file")

    page.click("#voice")
    (tmp_path / "song.npz").write_bytes(b"RIFF....")
    page.set_input_files("#upload-file", tmp_path / "song.npz")
    expect(page.locator("#voice-trouble")).to_contain_text("song.npz is no voice")
    np.savez(tmp_path / "other.npz", numbers=np.arange(3))
    page.set_input_files("#upload-file", tmp_path / "other.npz")
    expect(page.locator("#voice-trouble")).to_contain_text("expected semantic_prompt")


def test_ten_thousand_characters_survive_a_reload(page: Any):
    words = [f"This is sentence number {i}, and it is not a short one at all." for i in range(180)]
    text = "\n\n".join(" ".join(words[i : i + 20]) for i in range(0, 180, 20))
    assert len(text) >= 10_000
    asked: list[dict[str, Any]] = []
    fake_speech(page, asked, most=3)
    page.click("#tab-long")
    page.fill("#long", text)
    expect(page.locator("#long-count")).to_contain_text(f"{len(text):,} characters")
    page.fill("#seed", "10")
    page.click("#speak")
    expect(page.locator("#trouble")).to_contain_text("cannot be reached")
    first = [body["input"] for body in asked]
    assert len(first) == 3

    page.unroute("**/v1/audio/speech")
    asked.clear()
    fake_speech(page, asked)
    page.reload()
    expect(page.locator("#news")).to_contain_text("not done")
    assert page.locator("#long").input_value().split() == text.split()
    expect(page.locator(".sentences button")).to_have_count(3)
    page.click(".resume")
    wait_until_done(page)
    whole = first + [body["input"] for body in asked]
    assert " ".join(whole).split() == text.split()
    assert all(len(part) <= 1500 for part in whole)
    assert [body["seed"] for body in asked] == list(range(13, 10 + len(whole)))
    # What is done is still there after one more reload, and can be downloaded.
    page.reload()
    expect(page.locator("#news")).to_contain_text("still here")
    page.locator(".download select").select_option("pcm")
    _, content = downloaded(page, lambda: page.click(".download button"))
    pause = round(0.35 * RATE)
    assert len(content) == 2 * (2400 * len(whole) + pause * (len(whole) - 1))
    page.click(".remove")
    page.reload()
    page.locator("#about", has_text="demo").wait_for()
    page.wait_for_timeout(200)
    expect(page.locator(".take")).to_have_count(0)


EVIL = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>"


def test_nothing_that_is_shown_can_run(page: Any, server: Server, tmp_path: Path):
    voices = {"object": "list", "data": [{"id": EVIL, "name": EVIL, "language": EVIL}]}
    page.route("**/v1/audio/voices", lambda route: route.fulfill(json=voices))
    page.route("**/version", lambda route: route.fulfill(json={"model": EVIL, "engine": EVIL, "dtype": EVIL}))
    page.reload()
    page.locator("#about", has_text="img").wait_for()
    page.wait_for_timeout(200)
    asked: list[dict[str, Any]] = []
    fake_speech(page, asked)
    page.click("#voice")
    page.locator("#voice-list li button").first.click()
    expect(page.locator("#voice-name")).to_have_text(EVIL)
    speak(page, EVIL)
    wait_until_done(page)
    expect(page.locator(".sentences")).to_contain_text(EVIL)
    expect(page.locator(".what")).to_contain_text(EVIL)
    page.click("#tab-dialogue")
    page.fill("#dialogue", f"A{EVIL[:30]}: {EVIL}")
    page.click("#speak")
    wait_until_done(page, 2)
    page.click("#tab-long")
    # A file cannot have a slash in its name.
    name = EVIL.replace("/", "") + ".png"
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": b"x"})
    expect(page.locator("#trouble")).to_contain_text("onerror")
    page.unroute("**/v1/audio/speech")
    error = {"error": {"message": EVIL, "code": "x", "param": None, "type": "x"}}
    page.route("**/v1/audio/speech", lambda route: route.fulfill(status=400, json=error))
    page.click("#tab-text")
    speak(page, "Hello.")
    expect(page.locator("#trouble")).to_have_text(EVIL)
    assert page.evaluate("() => [window.pwned, document.querySelectorAll('img').length]") == [None, 0]
    # And if it were shown as markup, the policy would not let it run.
    page.evaluate("(evil) => { document.querySelector('#news').innerHTML = evil; }", EVIL)
    page.wait_for_timeout(100)
    assert page.evaluate("() => window.pwned") is None


def test_right_to_left_text(page: Any):
    fake_speech(page, [])
    hebrew = "שלום, מה שלומך היום?"
    speak(page, hebrew)
    wait_until_done(page)
    for selector in ("#text", ".sentences", ".sentences button"):
        assert page.locator(selector).evaluate("(node) => getComputedStyle(node).direction") == "rtl"
    expect(page.locator(".sentences button")).to_have_text([hebrew])


def test_the_keyboard_is_enough(page: Any):
    def focus() -> str:
        return page.evaluate("() => document.activeElement.id || document.activeElement.className")

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if focus() == name:
                outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"{name} does not show the focus"
                return
        raise AssertionError(f"Tab does not reach {name}")

    tab_to("text")
    page.keyboard.type("Hello.")
    tab_to("voice")
    page.keyboard.press("Enter")
    page.keyboard.type("lively")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#voice-name")).to_have_text("lively")
    tab_to("speak")
    page.keyboard.press("Enter")
    wait_until_done(page)
    wait_for_silence(page)
    assert sum(len(piece["samples"]) for piece in heard(page)) > 0.3 * RATE
    tab_to("picture")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Home")
    expect(page.locator(".picture")).to_have_attribute("aria-valuenow", "0.0")
    page.keyboard.press(" ")
    expect(page.locator(".play")).to_have_text("Pause")


def test_a_dialogue_has_a_voice_for_each_name(page: Any):
    asked: list[dict[str, Any]] = []
    fake_speech(page, asked)
    page.click("#tab-dialogue")
    page.fill("#dialogue", "ANNA: Hello.\nBEN: Good day.\n  And welcome.\n# not spoken\nANNA: Thanks.")
    expect(page.locator("#cast bdi")).to_have_text(["ANNA", "BEN"])
    page.click("#speak")
    wait_until_done(page)
    assert [body["input"] for body in asked] == ["Hello.", "Good day.\nAnd welcome.", "Thanks."]
    assert asked[0]["voice"] == asked[2]["voice"] != asked[1]["voice"]
    expect(page.locator(".sentences .who")).to_have_text(["ANNA", "BEN", "ANNA"])


def test_copies_run(page: Any, server: Server, tmp_path: Path):
    text = """It's "quoted", costs $5 and \\n is no newline."""
    page.fill("#text", text)
    page.fill("#seed", "3")

    def copied(kind: str) -> str:
        page.evaluate("() => navigator.clipboard.writeText('')")
        page.click(f"[data-copy={kind}]")
        expect(page.locator("#news")).to_contain_text("Copied")
        return page.evaluate("() => navigator.clipboard.readText()")

    page.locator("#format").select_option("wav")
    curl, python = copied("curl"), copied("python")
    from barkfast.cli import build_parser

    args = build_parser().parse_args(shlex.split(copied("say"))[1:])
    assert (args.text, args.seed, args.output, args.model) == (text, 3, "speech.wav", "demo")
    # The command has no voice of the server's own: it names the model's that stands behind.
    assert args.voice == "calm"
    page.click("#tab-dialogue")
    page.fill("#dialogue", f"ANNA: {text}\nBEN: Yes.")
    command, _, rest = copied("say").partition("\n")
    args = build_parser().parse_args(shlex.split(command.partition(" <<")[0])[1:])
    assert args.script == "-" and len(args.cast) == 2
    assert rest == f"ANNA: {text}\nBEN: Yes.\nEND"

    expected = ask(server, input=text, voice="default", seed=3)
    (tmp_path / "ask.py").write_text(python, encoding="utf-8")
    if shutil.which("curl"):
        subprocess.run(["bash", "-c", curl], cwd=tmp_path, check=True, capture_output=True)
        assert np.array_equal(np.frombuffer((tmp_path / "speech.wav").read_bytes()[44:], "<i2"), expected)
    pytest.importorskip("openai")
    subprocess.run([sys.executable, "ask.py"], cwd=tmp_path, check=True, capture_output=True)
    assert np.array_equal(np.frombuffer((tmp_path / "speech.wav").read_bytes()[44:], "<i2"), expected)


def test_a_phone_shows_all_of_it(page: Any):
    fake_speech(page, [])
    page.set_viewport_size({"width": 340, "height": 640})
    speak(page, "A" * 200 + " " + TEXT)
    wait_until_done(page)
    for tab in ("text", "dialogue", "long"):
        page.click(f"#tab-{tab}")
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    for selector in ("#speak", "#stop", ".play", ".again", ".keep", ".download button"):
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 340 and box["height"] >= 36
    page.click("#tab-text")
    page.click("#voice")
    box = page.locator("#voices").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 340 and box["y"] + box["height"] <= 640


def serious(page: Any) -> list[str]:
    """The findings of axe-core that are serious or worse."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run()")["violations"]
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Any, server: Server, scheme: str):
    if not AXE.exists():
        pytest.skip("axe-core is not here; `make test-page` fetches it where there is npm")
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    fake_speech(page, [])
    speak(page, TEXT)
    wait_until_done(page)
    page.click("summary")
    assert serious(page) == []
    for tab in ("dialogue", "long"):
        page.click(f"#tab-{tab}")
        page.fill(f"#{tab}", "ANNA: Hello.")
        assert serious(page) == []
    page.click("#tab-text")
    page.click("#voice")
    assert serious(page) == []
    page.goto(server.url + "status")
    expect(page.locator("#state")).to_have_text("The engine works.")
    assert serious(page) == []


def test_the_status_page_plots_the_metrics(page: Any, server: Server):
    ask(server, input="Hello.", seed=1)
    page.goto(server.url + "status")
    expect(page.locator("#state")).to_have_text("The engine works.")
    expect(page.locator("#numbers")).to_contain_text("Slots")
    labels = page.locator("svg").evaluate_all("(all) => all.map((one) => one.getAttribute('aria-label'))")
    assert labels[0] == f"Requests: running 0, waiting 0, slots {SLOTS}"
    assert re.fullmatch(r"Memory: engine [\d,]+ MB, server [\d,]+ MB", labels[-1])
    expect(page.locator("svg path.line").first).to_be_attached()
    page.route("**/metrics", lambda route: route.abort())
    expect(page.locator("#state")).to_contain_text("cannot be reached")
    page.unroute("**/metrics")
    expect(page.locator("#state")).to_have_text("The engine works.")


def test_a_key_is_asked_for_and_sent(page: Any):
    sent: list[str | None] = []

    def reply(route: Any) -> None:
        given = route.request.headers.get("authorization")
        sent.append(given)
        if given != "Bearer right":
            error = {"error": {"message": "wrong", "code": "invalid_api_key", "param": None, "type": "x"}}
            route.fulfill(status=401, json=error)
        else:
            route.continue_()

    page.route("**/v1/audio/voices", reply)
    page.reload()
    expect(page.locator("#key-dialog")).to_be_visible()
    page.fill("#key", "right")
    page.keyboard.press("Enter")
    expect(page.locator("#key-dialog")).to_be_hidden()
    page.click("#voice")
    expect(page.locator("#voice-list li").first).to_be_visible()
    assert sent == [None, "Bearer right"]


def test_open_shows_the_page(server: Server, opened: Path):
    assert opened.read_text().strip() == server.url
