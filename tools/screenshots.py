"""`make screenshots`: the pictures of the page in docs/pictures, made of the real page with the demo voice."""

import io
import re
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

from tools.browser import Server, open_browser

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
TEXT = "Hello! I am bark fast. You hear the first sentence while the second one is being made."
DIALOGUE = """ANNA: Did you hear that?
BEN: I heard nothing at all. It must have been the wind.
ANNA: The wind does not knock at doors."""
BOOK = "\n\n".join(
    f"{start} The road went on past the mill, and nobody on it was in a hurry. At noon the bells rang. "
    f"{end} It was a warm day, and the river was low."
    for start, end in [
        ("In the morning the two friends set out.", "They rested under the old trees."),
        ("In the evening they came to a village.", "The innkeeper had a room for them."),
        ("On the second day it rained.", "They did not mind, for they had good coats."),
    ]
)
# Seconds between two frames of the animated picture, and its width.
FRAME_S, FRAME_WIDTH = 0.12, 720
MOST_FRAMES = 90


def open_page(browser: Any, server: Server, width: int, height: int, **options: Any) -> Any:
    """The page once the model's name is shown."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    page.goto(server.url)
    page.locator("#about", has_text="demo").wait_for()
    return page


def wait_until_done(page: Any, number: int) -> None:
    """Wait for a take."""
    page.locator("#news", has_text=f"Take {number} is done").wait_for(timeout=120_000)


def wait_for_end(page: Any) -> None:
    """Wait until nothing plays."""
    while page.locator(".play", has_text="Pause").count():
        page.wait_for_timeout(100)


def save(page: Any, name: str, **options: Any) -> None:
    """Write docs/pictures/page-NAME.png with few colours: text and flat areas need no more."""
    picture = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
    target = PICTURES / f"page-{name}.png"
    picture.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target}: {picture.width}x{picture.height}, {target.stat().st_size // 1000} kB")


def animate(browser: Any, server: Server) -> None:
    """The sound that appears while it is made, at the pace at which it does."""
    page = open_page(browser, server, 900, 1300)
    page.fill("#text", TEXT)
    page.fill("#seed", "5")
    page.click("#speak")
    take = page.locator(".take")
    take.scroll_into_view_if_needed()
    frames: list[Image.Image] = []
    began = time.monotonic()
    box = page.evaluate(
        "() => { const r = document.querySelector('.take').getBoundingClientRect(); "
        "return {x: r.x, y: r.y, width: r.width, height: 640} }"
    )
    times = []
    while len(frames) < MOST_FRAMES:
        times.append(time.monotonic())
        frame = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
        frames.append(
            frame.resize((FRAME_WIDTH, round(frame.height * FRAME_WIDTH / frame.width)), Image.Resampling.LANCZOS)
        )
        if time.monotonic() - began > 2 and not page.locator(".play", has_text="Pause").count():
            break
        page.wait_for_timeout(max(0.0, FRAME_S - (time.monotonic() - times[-1])) * 1000)
    # As high as the take has become.
    shown = page.locator(".take").bounding_box()["height"] * FRAME_WIDTH / box["width"]
    frames = [frame.crop((0, 0, FRAME_WIDTH, round(shown))) for frame in frames]
    durations = [round(1000 * (b - a)) for a, b in zip(times, times[1:], strict=False)] + [2500]
    target = PICTURES / "page-speaking.webp"
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=60, method=4)
    print(f"{target}: {len(frames)} frames, {target.stat().st_size // 1000} kB")
    page.context.close()


def show_takes(browser: Any, server: Server) -> None:
    """A take, and the same once more, side by side."""
    page = open_page(browser, server, 1200, 900)
    page.fill("#text", TEXT)
    page.fill("#seed", "5")
    page.click("#speak")
    wait_until_done(page, 1)
    wait_for_end(page)
    page.click(".again")
    wait_until_done(page, 2)
    page.locator("article[aria-label='Take 2'] .sentences button").nth(1).click()
    page.wait_for_timeout(900)
    save(page, "takes", full_page=True)
    page.context.close()


def show_dialogue(browser: Any, server: Server) -> None:
    """A dialogue, dark."""
    page = open_page(browser, server, 1200, 900, color_scheme="dark")
    page.click("#tab-dialogue")
    page.fill("#dialogue", DIALOGUE)
    page.fill("#seed", "3")
    page.click("#speak")
    wait_until_done(page, 1)
    page.locator(".sentences button").nth(1).click()
    page.wait_for_timeout(1200)
    save(page, "dialogue-dark", full_page=True)
    page.context.close()


def show_voices(browser: Any, server: Server) -> None:
    """The list of voices."""
    page = open_page(browser, server, 800, 720)
    page.click("#voice")
    page.wait_for_timeout(300)
    save(page, "voices")
    page.context.close()


def show_long(browser: Any, server: Server) -> None:
    """A long text on a phone, while it is made."""
    page = open_page(browser, server, 390, 844)
    page.click("#tab-long")
    page.fill("#long", "\n\n".join([BOOK] * 6))
    page.fill("#seed", "7")
    page.click("#speak")
    page.locator(".left", has_text=re.compile(r"4\d %.* left")).wait_for(timeout=240_000)
    save(page, "long-phone", full_page=True)
    page.click("#stop")
    page.context.close()


def show_status(browser: Any, server: Server) -> None:
    """The status page under some load."""
    body = b'{"input": "The road went on past the mill. Nobody was in a hurry.", "response_format": "pcm"}'
    stop = time.monotonic() + 60

    def ask(pause: float) -> None:
        while time.monotonic() < stop:
            request = urllib.request.Request(server.url + "v1/audio/speech", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                answer.read()
            time.sleep(pause)

    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.goto(server.url + "status")
    page.wait_for_timeout(6000)
    clients = [threading.Thread(target=ask, args=(i / 2,)) for i in range(10)]
    for client in clients:
        client.start()
        page.wait_for_timeout(3000)
    for client in clients:
        while client.is_alive():
            page.wait_for_timeout(200)
    page.wait_for_timeout(4000)
    save(page, "status", full_page=True)
    context.close()


def main() -> None:
    """Make all of them."""
    server = Server("--slots", "4")
    try:
        with open_browser() as browser:
            for show in (animate, show_takes, show_dialogue, show_voices, show_long, show_status):
                show(browser, server)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
