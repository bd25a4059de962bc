"""A daemon whose clock a test sets: the real time, and as many milliseconds ahead as a file says.

As a module: ``python -m tests.lab.clocked node.toml CLOCK [--nightly]`` runs what ``rxledger daemon --config node.toml``
runs, with that clock.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ledger.keystore import UnlockFile
from nodes.daemon.config import load_config
from nodes.daemon.logs import configure_logs
from nodes.daemon.service import run

__all__ = ["FileClock"]


class FileClock:
    """Reads the file at every look, so that all processes with one file have one time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000 + int(self._path.read_text() or 0)

    def set(self, now_ms: int) -> None:
        """Let it be this time now, for everybody; whole, so that nobody reads half of it."""
        beside = self._path.with_suffix(".new")
        beside.write_text(str(now_ms - time.time_ns() // 1_000_000))
        beside.replace(self._path)


def main() -> int:
    """Run it; returns its exit code."""
    config = load_config(Path(sys.argv[1]))
    assert config.unlock is not None
    configure_logs(config.log_level)
    return run(
        config,
        UnlockFile(config.unlock),
        nightly_only="--nightly" in sys.argv,
        clock=FileClock(Path(sys.argv[2])),
    )


if __name__ == "__main__":
    raise SystemExit(main())
