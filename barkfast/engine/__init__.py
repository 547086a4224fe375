"""Many requests at once: each a task that a scheduler advances, a little work at a time.

request.py says what is asked, and checks it; task.py is what a scheduler advances, a stage or, in utterance.py, a whole
request; seating.py keeps the slots of a decoder, networks.py the networks of each task; scheduler.py decides whose turn
it is, and is the only one to call networks; events.py is what comes out.

For threads: shared.py runs one scheduler for all callers; batch.py, long.py and live.py speak many requests, long texts
piece by piece, and sentences as they come; turns.py and ahead.py are what these two share, sound.py the iterator that
callers get. For asyncio, in a thread of its own: engine.py, with intake.py in front of worker.py, and stream.py for
sentences as they come.
"""
