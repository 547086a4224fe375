"""Many requests at once: each an utterance that a scheduler advances, a little work at a time.

request.py says what is asked; utterance.py knows what is to be done next for one request; seating.py keeps the slots
of a decoder; scheduler.py decides whose turn it is, and is the only one to call networks; events.py is what comes out.

In the caller's thread: desk.py runs one scheduler for all callers; batch.py, long.py and live.py speak many requests,
long texts piece by piece, and sentences as they come; turns.py and ahead.py are what these two share. For asyncio, in
a thread of its own: engine.py, with intake.py in front of worker.py, and stream.py for sentences as they come.
"""
