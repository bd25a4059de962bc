"""Carries one command out again and again, each time in a fork that kills itself before a certain statement (R1, R17).

Input, as JSON: case, arguments (base64 of MessagePack), unlock file, clock, fresh copies of the node's directory and how
many kills are wanted. The first copy serves to count the statements. For each later one a line: directory, and what the
fork said before it died: nothing, or the link of what it had acknowledged.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec
import structlog

from ledger import Ledger, UnlockFile
from tests.machine_for_tests import SettableClock
from tests.repeats_for_tests import CASES, COMMAND, Args


def carry_out(job: dict[str, object], directory: str, kill_before: int) -> tuple[int, str]:
    """Carry the command out; returns how many statements it ran and what it wrote, unless it is killed."""
    clock = SettableClock()
    clock.ms = int(str(job["now_ms"]))
    ledger = Ledger.open(Path(directory), UnlockFile(Path(str(job["unlock"]))), clock=clock)
    statements = 0

    def count(_: str) -> None:
        nonlocal statements
        statements += 1
        if statements == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    ledger.node.store._c._db.set_trace_callback(count)  # type: ignore[attr-defined]
    args = msgspec.msgpack.decode(base64.b64decode(str(job["args"])), type=Args)
    receipt = CASES[str(job["case"])].run(ledger, COMMAND, args)
    return statements, receipt.link.hex()


def in_a_fork(job: dict[str, object], directory: str, kill_before: int) -> str:
    """What the fork said."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            statements, link = carry_out(job, directory, kill_before)
            os.write(write, f"{statements} {link}".encode())
            os.kill(os.getpid(), signal.SIGKILL)  # Without closing anything.
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the fork ended by itself"
    return said


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    job = json.loads(sys.stdin.read())
    first, *copies = job["copies"]
    statements = int(in_a_fork(job, first, 0).split()[0])
    wanted = len(copies)
    # Evenly over all statements, the last of them before the commit and one after everything.
    points = sorted(
        {1 + statements * n // (wanted - 1) for n in range(wanted - 1)} | {statements, statements + 1}
    )
    for directory, point in zip(copies, points[-wanted:], strict=False):
        said = in_a_fork(job, directory, point).split()
        print(directory, said[1] if said else "-", flush=True)


if __name__ == "__main__":
    main()
