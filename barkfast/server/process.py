"""An engine in a process of its own, behind the interface of `Engine`.

A crash, a full memory or a hung driver ends that process, and never the server; giving back its memory means ending it.
"""

import asyncio
import contextlib
import dataclasses
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from barkfast.checks import check_count
from barkfast.engine.results import Generation, SpokenSentence, Stats
from barkfast.errors import BarkfastError, EngineClosed, EngineDead, EngineError
from barkfast.server import frames
from barkfast.server.frames import Message
from barkfast.server.settings import About

logger = logging.getLogger(__name__)

# Chunks of a stream that may be on their way or unread.
CREDIT = 4
# Seconds without a report after which the process counts as hung, and seconds that a round of work may take. The first
# rounds on a GPU compile kernels.
SILENT_S, ROUND_S = 10.0, 300.0
# Starts after a death, and seconds before each.
BACK_OFF_S = (0.5, 2.0, 8.0)
# Seconds of work after which a death is no longer counted with those before.
WELL_S = 60.0
# Seconds that the process may take to end by itself.
GRACE_S = 5.0
NO_STATS = Stats(False, *(0,) * 8, *(0.0,) * 3, None, None)


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """What the engine's process is told.

    Args:
        model, device, dtype: as of `Bark`.
        slots, queue: as `n_slots` and `queue_size` of `Engine`.
        idle_s: seconds without a request after which the process is ended, until the next one comes; None for never.
    """

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    slots: int = 8
    queue: int = 64
    idle_s: float | None = None

    def __post_init__(self) -> None:
        check_count("slots", self.slots, 1, "requests in a batch")
        check_count("queue", self.queue, 0, "requests that may wait for a slot")


class EngineProcess:
    """Starts the process, watches it, and starts it again where it dies.

    Args:
        check: called with what the process says of its model before anything is loaded; its error ends the start.

    Attributes:
        about: what the process said; None before.
        restarts: how often it was started again.
    """

    def __init__(self, settings: EngineSettings, check: Callable[[About], object] = lambda about: None) -> None:
        self.settings, self._check = settings, check
        self.about: About | None = None
        self.restarts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._requests: dict[int, asyncio.Queue[tuple[Message, bytes]]] = {}
        self._number = 0
        self._state: Message = {}
        self._reported = self._used = self._began = time.monotonic()
        self._deaths = 0
        self._dead: EngineDead | None = None
        self._draining = self._closed = self._unloaded = False

    # --- as of Engine

    async def start(self) -> None:
        """Start the process and wait until its networks are loaded. Raises: as `Engine.start`."""
        await self._start()
        self._watching = asyncio.create_task(self._watch())

    async def __aenter__(self) -> "EngineProcess":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def sample_rate(self) -> int:
        """Samples per second; 0 before the process has said it."""
        return self.about.layout.sample_rate if self.about is not None else 0

    @property
    def process_id(self) -> int | None:
        """The number of the process, while it runs."""
        return self._process.pid if self._process is not None and self._writer is not None else None

    @property
    def healthy(self) -> bool:
        """Whether the process works, or would be started by a request."""
        if self._dead is not None or self._closed:
            return False
        return self._unloaded or (self._writer is not None and bool(self._state.get("healthy", True)))

    @property
    def accepting(self) -> bool:
        """Whether new requests are taken."""
        return self.healthy and not self._draining and bool(self._state.get("accepting", True))

    @property
    def free_bytes(self) -> int | None:
        """Memory that the process may still allocate on its device; None while it does not run."""
        return self._state.get("free_bytes") if self._writer is not None else None

    def stats(self) -> Stats:
        """The numbers that the process has reported last."""
        stats = self._state.get("stats")
        return dataclasses.replace(Stats(**stats), healthy=self.healthy) if stats else NO_STATS

    def stream(self, text: str, **options: Any) -> "ProcessStream":
        """A stream, as of `Engine.stream`; texts are str."""
        return ProcessStream(self, text, options)

    async def generate(self, text: str, **options: Any) -> Generation:
        """As `Engine.generate`."""
        number, answers = await self._begin({"op": "generate", "text": text, "options": options})
        try:
            message, data = await answers.get()
        except asyncio.CancelledError:
            self._cancel(number)
            raise
        finally:
            self._requests.pop(number, None)
        _raise_from(message)
        made: dict[str, Any] = {**frames.make_arrays(message["arrays"], data), **message["rest"]}
        return Generation(**made)

    async def drain(self, timeout_s: float | None = None) -> bool:
        """As `Engine.drain`."""
        self._draining = True
        if self._writer is None:
            return True
        number, answers = await self._begin({"op": "drain", "timeout_s": timeout_s})
        try:
            message, _ = await answers.get()
        finally:
            self._requests.pop(number, None)
        return bool(message.get("empty", False))

    async def close(self) -> None:
        """End everything."""
        self._closed = True
        for task in (self._watching, self._starting):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._end(EngineClosed("the engine was closed"))

    # --- the process

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "barkfast.server.child", str(theirs.fileno())]
        with theirs:
            # A session of its own: Ctrl-C is for the server.
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), start_new_session=True)
        self._reader, writer = await asyncio.open_connection(sock=ours)
        settings = dataclasses.asdict(self.settings)
        writer.write(frames.pack({name: settings[name] for name in ("model", "device", "dtype", "slots", "queue")}))
        try:
            about = About.from_message((await self._read_start(self._reader))["about"])
            if about != self.about:
                self._check(about)
                # The same object as long as it says the same.
                self.about = about
            await self._read_start(self._reader)
        except BaseException as error:
            # Also where the task is cancelled.
            writer.close()
            ended = isinstance(error, asyncio.IncompleteReadError | ConnectionError)
            await asyncio.to_thread(_stop, self._process, not ended)
            if ended:
                status = self._process.returncode
                raise EngineDead(
                    f"the engine's process ended with status {status} while it loaded the model"
                ) from error
            raise
        self._writer, self._state = writer, {}
        self._reported = self._used = self._began = time.monotonic()
        self._listening = asyncio.create_task(self._listen())

    @staticmethod
    async def _read_start(reader: asyncio.StreamReader) -> Message:
        message, _ = await frames.read(reader)
        if message["event"] == "failed":
            raise frames.make_error(message["error"])
        return message

    async def _listen(self) -> None:
        """Hand on what the process sends, until it is gone."""
        assert self._reader is not None
        why = "closed its connection"
        try:
            while True:
                message, data = await frames.read(self._reader)
                if message.get("event") == "state":
                    self._state, self._reported = message, time.monotonic()
                elif (answers := self._requests.get(message["id"])) is not None:
                    answers.put_nowait((message, data))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:
            why = f"sent what cannot be read: {error}"
        if not self._closed and not self._unloaded:
            await self._end(EngineDead(f"the engine's process {why}"))

    async def _watch(self) -> None:
        """Start the process again where it died, end it where it hangs or is idle."""
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic()
            if self._writer is not None:
                if (why := self._illness(now)) is not None:
                    await self._end(EngineDead(why))
                elif self._requests:
                    self._used = now
                elif self.settings.idle_s is not None and now - self._used > self.settings.idle_s:
                    logger.info("the engine was idle for %g s: its memory is given back", self.settings.idle_s)
                    self._unloaded = True
                    await self._end(EngineClosed("the engine was idle"))
                if now - self._began > WELL_S:
                    self._deaths = 0
            elif not self._unloaded and self._dead is None and self._starting is None:
                await self._restart()

    def _illness(self, now: float) -> str | None:
        """Why the process must be ended, if it must."""
        if now - self._reported > SILENT_S:
            return f"the engine's process has not answered for {SILENT_S:g} s"
        if self._state and not self._state["healthy"]:
            return "the engine has failed, see the log"
        if self.stats().round_s > ROUND_S:
            return f"the engine has been in one round of work for {ROUND_S:g} s"
        return None

    async def _restart(self) -> None:
        if self._deaths >= len(BACK_OFF_S):
            self._dead = EngineDead(f"the engine's process died {self._deaths + 1} times; see the server's log")
            logger.error("%s", self._dead)
            return
        delay = BACK_OFF_S[self._deaths]
        self._deaths += 1
        self.restarts += 1
        logger.warning("starting the engine again in %g s, for the %d. time", delay, self._deaths)
        await asyncio.sleep(delay)
        try:
            await self._start()
        except (BarkfastError, OSError) as error:
            logger.error("the engine did not start: %s", error)

    async def _wake(self) -> None:
        """Load again what was unloaded; all who wait share one start."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._load_again())
        # A caller that leaves does not end it for the others.
        await asyncio.shield(self._starting)

    async def _load_again(self) -> None:
        try:
            await self._start()
            self._unloaded = False
        finally:
            self._starting = None

    async def _end(self, error: BarkfastError) -> None:
        """End the process; what it had in progress fails with `error`."""
        writer, self._writer = self._writer, None
        listening, self._listening = self._listening, None
        if isinstance(error, EngineDead):
            logger.error("%s", error)
        for answers in self._requests.values():
            answers.put_nowait(({"end": "error", "error": frames.pack_error(error)}, b""))
        if writer is not None:
            writer.close()
        if listening is not None and listening is not asyncio.current_task():
            listening.cancel()
        if self._process is not None:
            await asyncio.to_thread(_stop, self._process, isinstance(error, EngineDead))

    # --- requests

    async def _begin(self, message: Message) -> tuple[int, asyncio.Queue[tuple[Message, bytes]]]:
        """Send a request; returns its number, and where its answers come."""
        if self._unloaded and not self._closed and not self._draining:
            await self._wake()
        if self._closed:
            raise EngineClosed("the engine was closed")
        if self._dead is not None:
            raise self._dead
        if self._writer is None:
            raise EngineDead("the engine's process has died and is being started again")
        self._number += 1
        number = self._number
        answers: asyncio.Queue[tuple[Message, bytes]] = asyncio.Queue()
        self._requests[number] = answers
        try:
            self._writer.write(frames.pack({"id": number, **message}))
            await self._writer.drain()
        except (EngineError, ConnectionError):
            self._requests.pop(number, None)
            raise
        return number, answers

    def _tell(self, number: int, what: str) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            if self._writer is not None:
                self._writer.write(frames.pack({"id": number, "op": what}))

    def _cancel(self, number: int) -> None:
        self._tell(number, "cancel")


class ProcessStream:
    """As `barkfast.engine.stream.Stream`, of an engine in another process."""

    def __init__(self, engine: EngineProcess, text: str, options: dict[str, Any]) -> None:
        self._engine, self._text, self._options = engine, text, options
        self.sentences: list[SpokenSentence] = []
        self.timings: dict[str, float] = {}
        self.voice: dict[str, np.ndarray] | None = None
        self.queue_wait_s: float | None = None
        self._number = 0
        self._answers: asyncio.Queue[tuple[Message, bytes]] | None = None
        self._ended = False

    async def open(self) -> None:
        """Submit it. Raises: as `Engine.stream` when it is opened."""
        if self._answers is not None or self._ended:
            return
        request = {"op": "stream", "text": self._text, "options": self._options, "credit": CREDIT}
        self._number, self._answers = await self._engine._begin(request)
        try:
            message, _ = await self._answers.get()
            if "end" in message:
                self._finish()
                _raise_from(message)
        except BaseException:
            await self.aclose()
            raise

    async def __aenter__(self) -> "ProcessStream":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> "ProcessStream":
        return self

    async def __anext__(self) -> np.ndarray:
        await self.open()
        if self._ended or self._answers is None:
            raise StopAsyncIteration
        try:
            message, data = await self._answers.get()
        except BaseException:
            await self.aclose()
            raise
        if "end" in message:
            self._finish()
            _raise_from(message)
            self.timings, self.voice = message["timings"], frames.make_arrays(message["voice"], data) or None
            raise StopAsyncIteration
        self.queue_wait_s, self.timings = message["queue_wait_s"], message["timings"]
        self.sentences += [SpokenSentence(**begun) for begun in message["sentences"]]
        self._engine._tell(self._number, "read")
        return np.frombuffer(data, "<f4")

    async def aclose(self) -> None:
        """End it; unread chunks are gone. May be called again."""
        if not self._ended and self._answers is not None:
            self._engine._cancel(self._number)
        self._finish()

    def _finish(self) -> None:
        self._ended = True
        self._engine._requests.pop(self._number, None)


def _raise_from(message: Message) -> None:
    if message.get("end") == "error":
        raise frames.make_error(message["error"])
    if message.get("end") == "cancelled":
        raise EngineClosed("the request was ended by the engine")


def _stop(process: "subprocess.Popen[bytes]", at_once: bool) -> None:
    """Wait until a process has ended; end it if it does not."""
    if at_once:
        process.kill()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
