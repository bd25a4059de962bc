"""A process with one link in it, told what to do over its standard input: a node's network side, alone in its host.

Run as a module it is the process; `Talker` is its handle in a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from ledger.clock import SystemClock
from nodes.links import LinkStatus
from nodes.nats.link import NatsLink
from nodes.nats.settings import LinkSettings

__all__ = ["Talker", "arguments"]

ANSWER_SECONDS = 15.0
"""For an answer to a command."""
COMMAND_BYTES_MAX = 1 << 20
"""One command with the largest message, in hexadecimal."""
MODULE = "tests.lab.talker"


def arguments(
    name: str, servers: Sequence[str], subjects: Sequence[str], settings: LinkSettings
) -> list[str]:
    """What the process is started with."""
    told = {"name": name, "servers": list(servers), "subjects": list(subjects)}
    return [json.dumps(told | {"settings": msgspec.to_builtins(settings)})]


class Talker:
    """The handle of one process; its output is read in a thread."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name, self._process = name, process
        self.messages: list[tuple[str, bytes, float]] = []
        """Subject, payload, when (monotonic clock, one for all processes of a machine)."""
        self._answers: list[Any] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in self._process.stdout:
                kind, *said = json.loads(line)
                if kind == "message":
                    self.messages.append((said[0], bytes.fromhex(said[1]), said[2]))
                else:
                    self._answers.append(said[0])

    def ask(self, *command: Any) -> Any:
        """Tell the process something; its answer."""
        assert self._process.stdin is not None
        self._answers.clear()
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        self.until(lambda: bool(self._answers), ANSWER_SECONDS)
        return self._answers[0]

    def send(self, subject: str, payload: bytes) -> bool:
        """`Link.send` there."""
        return bool(self.ask("send", subject, payload.hex()))

    def flood(self, subject: str, size: int, seconds: float) -> dict[str, int]:
        """Fill the link with messages of that size for a while; how many, and the most that lay below `send`."""
        found: dict[str, int] = self.ask("flood", subject, size, seconds)
        return found

    def status(self) -> LinkStatus:
        """`Link.status` there."""
        return msgspec.convert(self.ask("status"), LinkStatus)

    @property
    def up(self) -> bool:
        """Whether it is connected."""
        return self.status().state == "up"

    def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Wait for a condition; how long that took."""
        began = time.monotonic()
        while not condition():
            assert self._process.poll() is None, f"{self.name} has ended"
            assert time.monotonic() - began < seconds, f"{self.name}: it did not happen within {seconds} s"
            time.sleep(0.01)
        return time.monotonic() - began

    def close(self) -> None:
        """End it in good order and see that it had nothing to complain about."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        code = self._process.wait(ANSWER_SECONDS)
        self._reader.join(ANSWER_SECONDS)
        self._process.stdout.close()
        assert code == 0, f"{self.name} ended with {code}"


def say(*what: Any) -> None:
    print(json.dumps(what), flush=True)


async def flood(link: NatsLink, subject: str, size: int, seconds: float) -> dict[str, int]:
    loop = asyncio.get_running_loop()
    sent = most = 0
    end = loop.time() + seconds
    while loop.time() < end:
        sent += link.room() >= size and link.send(subject, bytes(size))
        most = max(most, link.below())
        await asyncio.sleep(0.005)
    return {"sent": sent, "most_below": most}


async def main() -> None:
    told = json.loads(sys.argv[1])
    link = NatsLink(
        told["name"],
        told["servers"],
        subjects=told["subjects"],
        on_message=lambda _, subject, payload: say("message", subject, payload.hex(), time.monotonic()),
        clock=SystemClock(),
        jitter=random.Random(told["name"]),
        settings=msgspec.convert(told["settings"], LinkSettings),
    )
    running = asyncio.create_task(link.run())
    reader = asyncio.StreamReader(limit=COMMAND_BYTES_MAX)
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        match json.loads(line):
            case ["send", subject, payload]:
                say("answer", link.send(subject, bytes.fromhex(payload)))
            case ["flood", subject, size, seconds]:
                say("answer", await flood(link, subject, size, seconds))
            case ["status"]:
                say("answer", msgspec.to_builtins(link.status()))
    pipe.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


if __name__ == "__main__":
    # Standard output is ours; a log would stand between the answers.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr))
    asyncio.run(main())
