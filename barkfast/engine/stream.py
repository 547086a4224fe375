"""Audio as it is ready, for one who reads it from an event loop."""

import asyncio
import contextlib
import warnings
from functools import partial

import numpy as np

from barkfast.engine.feed import Feed
from barkfast.engine.generation import Generation
from barkfast.engine.intake import Intake
from barkfast.engine.lines import Lines
from barkfast.engine.live import RETRIES
from barkfast.engine.places import Stay
from barkfast.engine.sinks import Inlet
from barkfast.engine.sound import DROPPED
from barkfast.engine.turns import Turn
from barkfast.errors import BarkfastError
from barkfast.longform.joining import LiveJoiner

NOTHING = np.zeros(0, dtype=np.float32)


class Stream:
    """The chunks of a text, (n,) float32 each: `async for chunk in stream`.

    The first sentence is asked for by `async with stream`, or else with the first chunk; its errors, QueueFull among
    them, are raised there. The next one is asked for when something of the one before was read. Errors of later work
    are raised where the next chunk would have been, those of a later sentence with its name. Leaving the `async with`,
    `aclose()`, dropping the stream, or cancelling a task that waits for a chunk ends all of it within a round of the
    engine's work. As long as many chunks lie unread, its utterances wait, and no others.

    `generation` holds the utterance that was read to its end last: of one utterance the whole, as `generate` would have
    returned it; of several the last sentence so far.
    """

    def __init__(self, intake: Intake, lines: Lines, *, deadline_s: float | None, wait: bool) -> None:
        self.generation: Generation | None = None
        self._intake, self._lines = intake, lines
        self._deadline_s, self._wait = deadline_s, wait
        self._joiner: LiveJoiner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # One place in the queue for all that is said: what was begun need not wait between two sentences.
        self._stay: Stay | None = None
        # The sentence that is read, and the one that is asked for behind it.
        self._feed: Feed | None = None
        self._asking: asyncio.Task[Feed] | None = None
        self._closed = False

    async def open(self) -> None:
        """Ask for the first sentence, unless that is done. Errors: those of `Engine.generate`."""
        if self._stay is None and not self._closed:
            await self._begin()

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self._stay = await self._intake.enter(self._deadline_s, self._wait)
            self._feed = await self._ask()
            self._joiner = LiveJoiner(self._lines.sample_rate)
        except BaseException:
            self._end()
            raise
        if self._closed:
            self._end()

    async def __aenter__(self) -> "Stream":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> np.ndarray:
        await self.open()
        try:
            while not self._closed:
                samples = await self._advance()
                if len(samples):
                    return samples
        except BaseException:
            await self.aclose()
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End all that has not ended; chunks that were not read are gone."""
        asking, self._asking = self._asking, None
        self._end()
        if asking is not None:
            asking.cancel()
            (asked,) = await asyncio.gather(asking, return_exceptions=True)
            if isinstance(asked, Feed):
                asked.close()

    async def _advance(self) -> np.ndarray:
        """The next samples, (n,) float32; none where a sentence begins or ends without any."""
        if self._feed is None and self._asking is not None:
            await asyncio.wait([self._asking])
            if self._asking is not None:
                self._feed, self._asking = self._asking.result(), None
                self._feed.lead()
        feed, joiner = self._feed, self._joiner
        if feed is None or joiner is None:
            # Closed by somebody else in the meantime.
            return NOTHING
        turn = feed.turn
        try:
            chunk = await feed.read()
        except BarkfastError as error:
            again = None if feed.heard else turn.once_more(error, RETRIES)
            if again is None:
                turn.blame(error, first_too=False)
            self._feed = await self._ask(again)
            return NOTHING
        if self._closed:
            return NOTHING
        self._look_ahead(feed)
        if chunk is not None:
            return joiner.push(chunk, turn.last)
        self.generation, self._feed = feed.generation, None
        if not turn.last:
            return joiner.next(turn.pause)
        self._end()
        return joiner.finish()

    def _look_ahead(self, feed: Feed) -> None:
        """Ask for the next sentence, once something of this one was heard and the voice is known."""
        if self._asking is not None or feed.turn.last:
            return
        if self._lines.learning:
            if feed.generation is None:
                return
            self._lines.learn(feed.generation)
        self._asking = asyncio.create_task(self._ask(follows=True))
        # Whoever goes away before it is read does not mind an error.
        self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _ask(self, turn: Turn | None = None, *, follows: bool = False) -> Feed:
        """Have a turn spoken: the next one, if none is given; `follows` if another is heard before it."""
        assert self._stay is not None
        if turn is None:
            turn = await self._intake.read(self._lines.next)
        inlet = Inlet()
        try:
            request = partial(self._lines.request, turn, self._stay.deadline)
            ticket = await self._intake.submit(self._stay, request, inlet, follows)
        except BarkfastError as error:
            turn.blame(error, first_too=False)
        feed = Feed(turn, self._intake.worker, ticket, inlet)
        if self._closed:
            # By somebody else, in the meantime.
            feed.close()
        return feed

    def _end(self) -> None:
        """Give up what there is."""
        self._closed = True
        if self._feed is not None:
            self._feed.close()
        if self._stay is not None:
            self._stay.close()

    def __del__(self) -> None:
        if self._stay is not None and not self._closed and self._loop is not None:
            warnings.warn(DROPPED, ResourceWarning, stacklevel=2, source=self)
            # Not here: this may run anywhere. What its feeds still have they give up themselves.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stay.close)
