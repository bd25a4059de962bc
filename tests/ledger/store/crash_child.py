"""What a crash test kills: opens a node, appends, and says of each event that it is durable, after it is.

Arguments: node directory, unlock file, document (hex), how many amendments.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog

from ledger import Coded, DocumentId, Ledger, Person, PersonRole, UnlockFile
from ledger.persons import PRESCRIBER_CODE


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    directory, unlock, document, count = sys.argv[1:]
    person = Person(Coded(PRESCRIBER_CODE, "0012345"), PersonRole.PRESCRIBER)
    with Ledger.open(Path(directory), UnlockFile(Path(unlock))) as ledger:
        print("open", flush=True)
        for number in range(int(count)):
            receipt = ledger.amend(
                DocumentId(bytes.fromhex(document)), person=person, dosage=f"{number} tabletter"
            )
            print(receipt.link.hex(), flush=True)
    print("closed", flush=True)


if __name__ == "__main__":
    main()
