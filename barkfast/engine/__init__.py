"""Everything that generates: one description of an utterance, one scheduler, and their callers.

results.py: what comes back. utterance.py: the state of one request, what to do for it next.
slots.py: the slots of each decoder. scheduler.py: which work runs next; the only one that calls networks. pace.py:
how many low-latency streams keep up. shared.py: one model and one scheduler for all threads.
segments.py: a text as segments, and which of them are in progress. long.py: long texts, dialogues, streams and batches
for synchronous callers. async_engine.py, with admission.py, worker.py and stream.py: many requests from an event loop.
"""
