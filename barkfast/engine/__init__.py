"""Many requests at once: each an utterance that a scheduler advances, a little work at a time.

request.py says what is asked; utterance.py knows what is to be done next for one request; seating.py keeps the slots
of a decoder; scheduler.py decides whose turn it is, and is the only one to call networks; events.py is what comes out.
desk.py runs a scheduler in the threads of its callers, engine.py in one of its own, for asyncio.
"""
