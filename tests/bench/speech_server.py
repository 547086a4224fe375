"""A speech server for tests: raw HTTP on a real socket, in a thread of its own."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

# What it does with a request, by number from 0: a list of what follows each other; a number is a pause in seconds,
# bytes are sent as a chunk, None closes the connection in the middle.
Script = list[float | bytes | None]
Answer = tuple[int, str, Script]


@contextlib.contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the address and the requests so far, each its body with "path" and "authorization".

    Args:
        answer: gives status, content type and script for the number and the body of a request.
    """
    requests: list[dict[str, Any]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            number = len(requests)
            requests.append({"path": head[0].split()[1], "authorization": headers.get("authorization"), **body})
            status, kind, script = answer(number, body)
            lines = [f"HTTP/1.1 {status} Answer", f"content-type: {kind}", "transfer-encoding: chunked"]
            writer.write(("\r\n".join([*lines, "connection: close"]) + "\r\n\r\n").encode())
            for part in script:
                await writer.drain()
                if part is None:
                    return
                if isinstance(part, bytes):
                    writer.write(b"%x\r\n%s\r\n" % (len(part), part))
                else:
                    await asyncio.sleep(part)
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    async def close_after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        finally:
            writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(close_after, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    finally:
        server.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
