"""The command `rxledger`: every command with ``--help`` and ``--json``.

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 damaged.
"""

from nodes.cli.main import main

__all__ = ["main"]
