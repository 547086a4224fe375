"""Many clients, slow ones, clients that leave, and requests that are made to do harm."""

import asyncio
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import psutil
import pytest

from barkfast.server import app as application
from barkfast.server import response as responses
from server.running import TEXT, Running, variables, wait_for

N_CLIENTS, N_SLOTS = 200, 8


@pytest.fixture(scope="module")
def crowded() -> "Running":
    from barkfast import Bark

    with Running(Bark("demo", device="cpu"), n_slots=N_SLOTS, queue_size=N_CLIENTS) as running:
        yield running


def test_two_hundred_clients_on_eight_slots(crowded: Running):
    """Most leave at once or after the first bytes; each request ends once, and the rest are whole."""
    crowded.post({"input": "Yes."})
    crowded.wait_idle()
    before, memory = crowded.counts(), psutil.Process().memory_info().rss
    draws = random.Random(1)
    kinds = ["stays"] * 12 + ["leaves late"] * 12 + ["leaves"] * (N_CLIENTS - 24)
    draws.shuffle(kinds)

    async def ask(client: httpx.AsyncClient, kind: str) -> bytes | None:
        asked = {"input": "Yes.", "seed": 7, "response_format": "pcm", "max_duration_s": 0.15, "mode": "exact"}
        async with client.stream("POST", "/v1/audio/speech", json=asked) as response:
            assert response.status_code == 200
            assert response.headers["x-seed"] == "7"
            if kind == "leaves":
                return None
            whole = b""
            async for piece in response.aiter_bytes():
                whole += piece
                if kind == "leaves late":
                    return None
            return whole

    async def run() -> list[bytes | None]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=crowded.url, timeout=300, limits=limits) as client:
            return await asyncio.gather(*(ask(client, kind) for kind in kinds))

    sounds = asyncio.run(run())
    crowded.wait_idle()
    ended = {outcome: n - before.get(outcome, 0) for outcome, n in crowded.counts().items()}
    assert sum(ended.values()) == N_CLIENTS
    # One that leaves late may have had its last bytes.
    assert ended["done"] >= kinds.count("stays") and set(n for n, count in ended.items() if count) <= {
        "done",
        "cancelled",
    }
    assert ended["cancelled"] > 0
    whole = {sound for sound in sounds if sound is not None}
    asked = {"input": "Yes.", "seed": 7, "response_format": "pcm", "max_duration_s": 0.15, "mode": "exact"}
    assert whole == {crowded.post(asked).content}
    assert psutil.Process().memory_info().rss - memory < 300e6


def test_a_full_queue_is_said_with_the_time_to_wait(demo: Running):
    demo.wait_idle()
    capacity = demo.engine._admission.queue.capacity
    held = [demo.raw(b'{"input": "' + b"Hello there. " * 40 + b'"}') for _ in range(capacity)]
    wait_for(lambda: demo.app.state.server.speaker.n_open == capacity)
    response = demo.post({"input": TEXT})
    assert response.status_code == 429 and response.json()["error"]["code"] == "queue_full"
    assert int(response.headers["retry-after"]) >= 1
    # Health does not wait for work.
    assert demo.get("/livez").status_code == 200
    for connection in held:
        connection.close()
    demo.wait_idle()
    assert demo.post({"input": "Yes."}).status_code == 200


def test_a_client_that_leaves_frees_its_slot(demo: Running):
    demo.wait_idle()
    cancelled = demo.counts().get("cancelled", 0)
    connection = demo.raw(b'{"input": "' + b"Hello there. " * 300 + b'"}')
    connection.recv(100)
    assert demo.app.state.server.speaker.n_open == 1
    left = time.monotonic()
    connection.close()
    demo.wait_idle()
    # The text alone would take minutes.
    assert time.monotonic() - left < 30
    assert demo.counts()["cancelled"] == cancelled + 1


def stalled_reader(demo: Running) -> socket.socket:
    """A connection that has asked for minutes of sound and reads none of it."""
    demo.wait_idle()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", demo.port))
    body = b'{"response_format": "wav", "speed": 0.25, "input": "' + b"Hello there. " * 300 + b'"}'
    connection.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    wait_for(lambda: demo.app.state.server.speaker.n_open == 1)
    return connection


def test_a_reader_that_stalls_stalls_only_itself(demo: Running):
    with stalled_reader(demo):

        def resting() -> bool:
            before = demo.engine.stats().busy_s
            time.sleep(0.5)
            return demo.engine.stats().busy_s == before > 0

        wait_for(resting)
        for _ in range(3):
            assert demo.post({"input": "Yes."}).status_code == 200
        wait_for(lambda: demo.app.state.server.speaker.n_open == 1)
    demo.wait_idle()


def test_a_reader_that_stalls_for_good_is_cut_off(demo: Running):
    with variables(responses, STALL_S=0.5), stalled_reader(demo):
        demo.wait_idle()


def test_senders_that_stall_harm_nobody(demo: Running):
    slow = [demo.raw(b'{"input": "', length=100) for _ in range(20)]
    assert demo.post({"input": "Yes."}).status_code == 200
    with variables(application, BODY_S=0.2):
        late = demo.raw(b'{"in', length=100)
        assert b" 408 " in late.recv(1000)
    for connection in [*slow, late]:
        connection.close()
    demo.wait_idle()


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_half_closed_connections_end(demo: Running, how: int):
    demo.wait_idle()
    total = sum(demo.counts().values())
    connection = demo.raw(b'{"input": "Yes."}')
    wait_for(lambda: sum(demo.counts().values()) + demo.app.state.server.speaker.n_open == total + 1)
    with suppress(OSError):
        connection.shutdown(how)
    demo.wait_idle()
    connection.close()
    assert sum(demo.counts().values()) == total + 1


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00" + bytes(100),
        b"GET /" + b"a" * 100_000,
    ],
    ids=["length", "chunk", "tls", "line"],
)
def test_what_is_no_http_is_refused(demo: Running, head: bytes):
    with socket.create_connection(("127.0.0.1", demo.port), timeout=30) as connection:
        try:
            connection.sendall(head)
            answer = connection.recv(100)
        except ConnectionError:
            answer = b""
        assert answer == b"" or b" 400 " in answer
    assert demo.get("/livez").status_code == 200


def test_poisoned_requests_end_alone(demo: Running):
    """Requests at the limits of every number, beside one that is well."""
    poisons = [
        {"max_duration_s": 1e-9},
        {"text_temp": 1e300, "waveform_temp": 1e300, "fine_temp": 1e300},
        {"text_temp": 1e-300, "waveform_temp": 1e-300},
        {"top_k": 10**18, "top_p": 1e-300},
        {"deadline_s": 1e-9},
        {"priority": 10**30},
        {"priority": -(10**30)},
        {"seed": 2**64 - 1, "input": "Yes. No."},
    ]
    well = {"input": TEXT, "seed": 3, "response_format": "pcm"}
    alone = demo.post(well).content
    demo.wait_idle()
    total = sum(demo.counts().values())

    def ask(body: dict) -> bytes | int:
        try:
            response = demo.post({"input": "Yes.", "max_duration_s": 0.5, **body})
            return response.content if response.status_code == 200 else response.status_code
        except httpx.RemoteProtocolError:
            return 0

    with ThreadPoolExecutor(9) as threads:
        answers = list(threads.map(ask, [{**well, "max_duration_s": None}, *poisons]))
    assert answers[0] == alone
    assert all(isinstance(a, bytes) or a in (0, 400, 503) for a in answers), answers
    demo.wait_idle()
    assert sum(demo.counts().values()) == total + 9
    assert demo.engine.healthy


def test_the_same_seed_gives_the_same_bytes_alone_and_under_load(demo: Running):
    asked = {"input": "Hello there. How are you?", "seed": 3, "response_format": "opus", "voice": "calm"}
    alone = demo.post(asked).content
    stop = threading.Event()

    def load(seed: int) -> None:
        while not stop.is_set():
            demo.post({"input": "Some other words.", "seed": seed})

    others = [threading.Thread(target=load, args=(seed,)) for seed in range(3)]
    for other in others:
        other.start()
    try:
        assert demo.post(asked).content == alone
    finally:
        stop.set()
        for other in others:
            other.join()
