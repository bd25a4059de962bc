"""`rxledger demo-nats`: an outage on real message servers and separate processes, told from before it to after it.

Everything the story prints is read back from ledgers, from what the daemons say of themselves, or from a stopwatch;
nothing is scripted but who does what when. A step whose outcome is not the expected one fails the command. Whatever
happens, no process is left, and no file unless a directory was named.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from ledger.errors import RxLedgerError
from nodes.cli.output import Output, hexed
from nodes.demo import Story, StoryFailed
from nodes.demo_nats_after import after
from nodes.demo_nats_before import before
from nodes.demo_nats_outage import outage
from nodes.demo_nats_processes import Overdue, stopped_by_signals
from nodes.demo_nats_tale import Tale
from nodes.demo_nats_world import NatsWorld

__all__ = ["run_demo_nats"]


def run_demo_nats(output: Output, *, directory: Path | None, seed: int) -> int:
    """Run the demonstration; 0 if every step ended as it must.

    Args:
        output: where it is told.
        directory: keeps realm, nodes, servers and logs; None: a temporary one, removed at the end.
        seed: of the realm's keys, and of what is prescribed.
    """
    started = time.perf_counter()
    story = Story(output)
    with stopped_by_signals() as stopping, tempfile.TemporaryDirectory(prefix="rxledger-nats-") as temporary:
        try:
            with NatsWorld((directory or Path(temporary)).resolve(), seed) as world:
                tale = Tale(story, world)
                before(tale, started)
                outage(tale)
                after(tale)
        except (StoryFailed, Overdue) as error:
            output.error("story", f"a step did not end as it must: {error}")
            return 1
        except RxLedgerError as error:
            if stopping.is_set():
                raise KeyboardInterrupt from error  # Ctrl-C reaches servers and daemons, too.
            output.error(error.code, f"a step did not end as it must: {error.message}", error.advice)
            return 1
    seconds = time.perf_counter() - started
    output.result(
        {"steps": hexed(story.steps), "seconds": round(seconds, 2)},
        f"\nDone in {seconds:.1f} s, on real servers and processes; none of them is left.",
    )
    return 0
