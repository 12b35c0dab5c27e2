"""A client of another making: nats-py on asyncio, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys

import anyio
import nats


async def publish_from_outside(
    url: str, subject: str, count: int, *, payload: str = "{}", headers: str = "{}"
) -> None:
    """Publish `count` messages; `{}` in the payload is their number. Each is confirmed by the server."""
    command = [sys.executable, __file__, url, subject, str(count), payload, headers]
    await anyio.run_process(command)


async def main(url: str, subject: str, count: int, payload: str, headers: dict[str, str]) -> None:
    client = await nats.connect(url)
    stream = client.jetstream()
    for number in range(count):
        await stream.publish(subject, payload.replace("{}", str(number)).encode(), headers=headers or None)

    await client.close()


if __name__ == "__main__":
    _, url, subject, count, payload, headers = sys.argv
    asyncio.run(main(url, subject, int(count), payload, json.loads(headers)))
