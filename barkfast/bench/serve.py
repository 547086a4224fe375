"""`barkfast bench --serve`: load on a speech server, from requests that arrive independently of its answers."""

import asyncio
import importlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from barkfast.bench import report
from barkfast.bench.bench import Interrupted, Say
from barkfast.bench.machine import describe_machine
from barkfast.bench.measure import summarize
from barkfast.checks import check_number, check_seed, check_whole
from barkfast.errors import InputError

if TYPE_CHECKING:
    import httpx

ROUTE = "/v1/audio/speech"
SAMPLE_RATE, SAMPLE_BYTES = 24_000, 2
# A player has samples of its own in store, so that a shorter deficit is not heard.
HEARD_S = 0.02
# Seconds without a byte after which a request has failed.
SILENCE_S = 120.0
# How files of sound begin.
CONTAINERS = {b"RIFF": "wav", b"ID3": "mp3", b"OggS": "ogg", b"fLaC": "flac"}
DONE, REFUSED, FAILED = "done", "refused", "failed"
WORDS = (
    "the a one this every small old new quiet bright river house garden morning winter letter window story teacher "
    "music train summer table bread mountain open road city friend water light paper travels waits sings turns walks "
    "finds keeps reads opens carries over under near behind after before with into slowly early often again"
)
LONGEST_SENTENCE = 12


@dataclass(frozen=True)
class Load:
    """What is sent to a server.

    Args:
        url: of the server: "http://host:8000", with or without /v1 or the whole route.
        model: that requests name.
        voice: that requests name.
        key: sent as a bearer token; None for none.
        rates: requests per second, each in turn.
        seconds: for how long requests arrive at each rate.
        requests: how many arrive at each rate, instead of for how long.
        words: the fewest and the most of a text.
        seed: of texts, arrivals and the speech itself: every rate has the same texts.

    Raises:
        InputError: a value is none of these.
    """

    url: str
    model: str = "tts-1"
    voice: str = "alloy"
    key: str | None = None
    rates: Sequence[float] = (0.25, 0.5, 1.0)
    seconds: float = 60.0
    requests: int | None = None
    words: tuple[int, int] = (5, 25)
    seed: int = 0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"the server is {self.url!r}; expected an address such as http://127.0.0.1:8000")
        if not self.rates:
            raise InputError("no rate was given; expected requests per second, such as 0.5,1,2")
        for rate in self.rates:
            check_number("a rate", rate, "a positive number of requests per second", least=0, open_=True)
        check_number("seconds", self.seconds, "a positive number", least=0, open_=True)
        if self.requests is not None:
            check_whole("requests", self.requests, "at least 1 request", least=1)
        if not 1 <= self.words[0] <= self.words[1]:
            raise InputError(f"words is {self.words}; expected the fewest, at least 1, and the most")
        check_seed(self.seed)

    @property
    def endpoint(self) -> str:
        """The address that speaks."""
        base = self.url.rstrip("/").removesuffix("/audio/speech").removesuffix("/v1")
        return base + ROUTE

    def plan(self, rate: float) -> list[tuple[float, str]]:
        """When each request of a rate is sent, in seconds from the first, and its text. Gaps are exponential."""
        gaps, texts = Random(f"gaps {self.seed}"), Random(f"texts {self.seed}")
        at, plan = 0.0, list[tuple[float, str]]()
        while at < self.seconds if self.requests is None else len(plan) < self.requests:
            plan.append((at, make_text(texts, texts.randint(*self.words))))
            at += gaps.expovariate(rate)
        return plan


def make_text(random: Random, n_words: int) -> str:
    """Sentences of common words."""
    words = random.choices(WORDS.split(), k=n_words)
    sentences = [words[start : start + LONGEST_SENTENCE] for start in range(0, n_words, LONGEST_SENTENCE)]
    return " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences)


class Player:
    """Someone who plays the samples from their first byte on.

    Args:
        first: when the first byte came, in seconds of the clock that `receive` is given; None before.
        underrun_s: the most seconds of sound that were missing at any time.
    """

    def __init__(self) -> None:
        self.first: float | None = None
        self.underrun_s = 0.0
        self.n_bytes = 0

    def receive(self, now: float, n_bytes: int) -> None:
        """More bytes came."""
        if self.first is None:
            self.first = now
        self.underrun_s = max(self.underrun_s, now - self.first - self.audio_s)
        self.n_bytes += n_bytes

    @property
    def audio_s(self) -> float:
        """Seconds of sound so far."""
        return self.n_bytes / SAMPLE_BYTES / SAMPLE_RATE


def require_httpx() -> Any:
    """The package. Raises: InputError with the line that installs it."""
    try:
        return importlib.import_module("httpx")
    except ImportError as error:
        raise InputError(
            f"barkfast bench --serve needs httpx, which cannot be imported ({error}); "
            "run: pip install 'barkfast[bench]'"
        ) from error


def run_serve(
    load: Load, *, out: Path | None = None, say: Say = print, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Send every rate's requests, one rate after the other; nothing is sent again, and no answer is waited for.

    Args:
        out: a file for the result, complete and valid after every rate.
        say: called with a line about what is going on.
        clock: in seconds.

    Returns: the result, as "serve" of barkfast/bench/schema.json describes it.

    Raises:
        InputError: without httpx, or where the server does not speak a first text.
        Interrupted: Ctrl-C; its result has the rates that were done.
    """
    require_httpx()
    begin = clock()
    rates: list[dict[str, Any]] = []
    result = {
        "schema": report.SCHEMA,
        "kind": "serve",
        "status": report.PARTIAL,
        "seconds": 0.0,
        "environment": describe_machine("cpu"),
        "case": describe_load(load),
        "rates": rates,
    }

    def save(status: str) -> None:
        result.update(status=status, seconds=clock() - begin)
        if out is not None:
            report.write_result(result, out)

    async def run() -> None:
        async with open_client(load) as client:
            say(f"checking that {load.endpoint} speaks")
            await _check(client, load, clock)
            for rate in load.rates:
                plan = load.plan(rate)
                say(f"{rate:g} requests per second: {len(plan)} in {plan[-1][0]:.0f} s")
                rates.append(describe_rate(rate, await send_plan(client, load, plan, clock)))
                save(report.PARTIAL)

    try:
        asyncio.run(run())
    except KeyboardInterrupt as interrupt:
        save(report.PARTIAL)
        raise Interrupted(result) from interrupt
    save(report.COMPLETE)
    return result


def describe_load(load: Load) -> dict[str, Any]:
    """The "case" of a result; the key is left out."""
    return {
        "url": load.endpoint,
        "model": load.model,
        "voice": load.voice,
        "rates": [float(rate) for rate in load.rates],
        "seconds": float(load.seconds) if load.requests is None else None,
        "requests": load.requests,
        "words": list(load.words),
        "seed": load.seed,
    }


def open_client(load: Load) -> "httpx.AsyncClient":
    """A client that never waits for a free connection of its own."""
    httpx = require_httpx()
    headers = {} if load.key is None else {"Authorization": f"Bearer {load.key}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(headers=headers, limits=limits, timeout=httpx.Timeout(SILENCE_S, connect=10.0))


async def _check(client: "httpx.AsyncClient", load: Load, clock: Callable[[], float]) -> None:
    """Raise InputError unless the server speaks."""
    row = await send_request(client, load, "Hello there.", load.seed, clock(), clock)
    if row["status"] != DONE:
        raise InputError(f"{load.endpoint} does not speak: {row['reason']}")


async def send_plan(
    client: "httpx.AsyncClient", load: Load, plan: Sequence[tuple[float, str]], clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """Send each request at its time, and wait for all ends. Returns: a row for each, in order."""
    begin = clock()

    async def send(number: int, at: float, text: str) -> dict[str, Any]:
        await asyncio.sleep(max(0.0, begin + at - clock()))
        row = await send_request(client, load, text, load.seed + number, begin + at, clock)
        return {"at_s": at, "characters": len(text), **row, "end_s": clock() - begin}

    return await asyncio.gather(*(send(i, *planned) for i, planned in enumerate(plan)))


async def send_request(
    client: "httpx.AsyncClient", load: Load, text: str, seed: int, due: float, clock: Callable[[], float]
) -> dict[str, Any]:
    """Send one request and receive its sound.

    Args:
        due: when it was to be sent. Times count from there, so that what delays this client is not left out.
    """
    httpx = require_httpx()
    late, player, start, reason = clock() - due, Player(), b"", ""
    body = {"model": load.model, "voice": load.voice, "input": text, "seed": seed}
    body |= {"response_format": "pcm", "stream_format": "audio", "stream": True}
    status = DONE
    try:
        async with client.stream("POST", load.endpoint, json=body) as response:
            if response.status_code == 200:
                async for data in response.aiter_bytes():
                    if data:
                        player.receive(clock(), len(data))
                        start = start if len(start) >= 4 else start + data[:4]
                reason = find_fault(response.headers.get("content-type", ""), start, player.n_bytes)
            else:
                # Before the message is read, which may break off.
                status = REFUSED if response.status_code == 429 else FAILED
                reason = f"status {response.status_code}: {_read_message(await response.aread())}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
    return {
        "status": FAILED if reason and status == DONE else status,
        "reason": reason,
        "late_s": max(0.0, late),
        "first_audio_s": None if player.first is None else player.first - due,
        "whole_s": clock() - due,
        "audio_s": player.audio_s,
        "underrun_s": player.underrun_s,
    }


def find_fault(content_type: str, start: bytes, n_bytes: int) -> str:
    """Why an answer is not 16-bit samples; empty where nothing speaks against it."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("text/") or kind in ("application/json", "audio/mpeg"):
        return f"the answer is {kind}; expected samples"
    for head, name in CONTAINERS.items():
        if start.startswith(head):
            return f"the answer is a {name} file; expected raw samples"
    if not n_bytes:
        return "the answer is empty"
    return f"the answer has {n_bytes} bytes, half a sample too many" if n_bytes % SAMPLE_BYTES else ""


def _read_message(body: bytes) -> str:
    """What a server says of an error: OpenAI's message, or the start of the text."""
    text = body.decode("utf-8", "replace")
    with suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["error"]["message"])
    return " ".join(text.split())[:200]


def describe_rate(rate: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the requests of one rate amount to. Args: rows: of `send_plan`, at least one."""
    done = [row for row in rows if row["status"] == DONE]
    reasons = [row["reason"] for row in rows if row["status"] == FAILED]
    seconds = max(row["end_s"] for row in rows)

    def summary(values: list[float]) -> dict[str, Any] | None:
        return summarize(values) if values else None

    return {
        "rate": float(rate),
        "seconds": seconds,
        **{status: sum(row["status"] == status for row in rows) for status in (DONE, REFUSED, FAILED)},
        "underruns": sum(row["underrun_s"] > HEARD_S for row in done),
        "errors": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        **{key: summary([row[key] for row in done]) for key in ("first_audio_s", "underrun_s", "whole_s")},
        "late_s": summary([row["late_s"] for row in rows]),
        "audio_s": sum(row["audio_s"] for row in done),
        "audio_s_per_s": sum(row["audio_s"] for row in done) / seconds,
        "requests": rows,
    }
