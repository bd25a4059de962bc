"""The other process that the test kills: writes through whoever owns the store, and notes what was acknowledged.

Arguments: node directory, unlock file, name, how many writes, journal, pause between writes (ms at most). Begun anew, it goes on where its journal ends, with
the same command id for what was not acknowledged.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import sys
import time
from pathlib import Path

import structlog

from ledger import DocumentId, Ledger, Receipt, StoreBusy, UnlockFile
from nodes.local import OutcomeUnknown, OwnerGone, connect_or_open
from nodes.local.client import SharedLedger
from tests.nodes.local.site_for_tests import DOCTOR, order

OWN_AT_MOST = 5
"""Writes after which a writer that had to own the store itself gives it back."""
AWAY_SECONDS = 0.01
"""After that: an owner that waits tries more often than this."""
AMENDED_EVERY = 5


def command_of(name: str, number: int) -> bytes:
    return hashlib.sha256(f"{name} {number}".encode()).digest()[:16]


def amends(number: int) -> bool:
    """Whether a write amends the prescription of the one before it."""
    return number % AMENDED_EVERY == AMENDED_EVERY - 1


class Writer:
    def __init__(self, directory: Path, unlock: Path, name: str) -> None:
        self.directory, self.unlock, self.name = directory, UnlockFile(unlock), name
        self.ledger: Ledger | None = None
        self.owned = 0
        self.way = ""

    def write(self, number: int, document: DocumentId | None) -> Receipt:
        while True:
            try:
                if self.ledger is None:
                    self.ledger, self.owned = connect_or_open(self.directory, self.unlock, wait_s=60), 0
                receipt = self.carry_out(self.ledger, number, document)
            except (OwnerGone, OutcomeUnknown, StoreBusy):
                self.let_go()
                continue
            shared = isinstance(self.ledger, SharedLedger)
            self.way = "shared" if shared else "owned"
            self.owned += not shared
            if self.owned >= OWN_AT_MOST:
                self.let_go()
                time.sleep(AWAY_SECONDS)
            return receipt

    def carry_out(self, ledger: Ledger, number: int, document: DocumentId | None) -> Receipt:
        command = command_of(self.name, number)
        if amends(number) and document is not None:
            return ledger.amend(document, person=DOCTOR, dosage=f"{number} tabletter", command=command)
        return ledger.prescribe(order(), person=DOCTOR, command=command)

    def let_go(self) -> None:
        if self.ledger is not None:
            self.ledger.close()
            self.ledger = None


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    directory, unlock, name, count, journal, pause_ms = sys.argv[1:]
    done = [line.split() for line in Path(journal).read_text().splitlines()]
    document = DocumentId(bytes.fromhex(done[-1][2])) if done else None
    writer = Writer(Path(directory), Path(unlock), name)
    # One write of the system a line: a line is there whole, or not.
    notes = os.open(journal, os.O_WRONLY | os.O_APPEND)
    pace = random.Random(name)
    print("ready", flush=True)
    for number in range(len(done), int(count)):
        # People stand between two writes; without a pause one writer would have the owner to itself.
        time.sleep(pace.uniform(0, float(pause_ms)) / 1000)
        receipt = writer.write(number, document)
        document = receipt.document
        os.write(notes, f"{number} {receipt.link.hex()} {document.hex()} {writer.way}\n".encode())
    writer.let_go()


if __name__ == "__main__":
    main()
