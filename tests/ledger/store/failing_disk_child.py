"""What the test of a failing disk runs: appends until the disk fails, then tries again, and says what it was told.

Arguments: the store, how many runs to append.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ledger.errors import RxLedgerError
from ledger.store import open_store
from tests.ledger.store.builders import FeedForTests


def main() -> None:
    store = open_store(Path(sys.argv[1]))
    feed, last = FeedForTests(), None
    for _ in range(int(sys.argv[2])):
        last = feed.run(1, last)
        try:
            with store.transaction():
                store.add_run(last)
            print("durable", flush=True)
        except RxLedgerError as error:
            print(error.code, flush=True)
    print("held", len(list(store.arrivals(0, 1000))), flush=True)


if __name__ == "__main__":
    main()
