"""What the test of interleaved writes kills: opens a node, serves it on its socket, until its input ends.

Arguments: node directory, unlock file.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import structlog

from ledger import Ledger, StoreBusy, UnlockFile
from nodes.local import OwnerSocket

WAIT_SECONDS = 60.0


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    directory, unlock = Path(sys.argv[1]), UnlockFile(Path(sys.argv[2]))
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            ledger = Ledger.open(directory, unlock)
            break
        except StoreBusy:  # A writer that found no owner holds it for a moment.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
    with ledger, OwnerSocket(ledger, directory):
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
