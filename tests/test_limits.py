"""Every limit that a peer can meet stands in the threat model, with its value and in words (R15)."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLE = dict(
    re.findall(
        r"^\| `([a-z_.]+\.[A-Z_]+)` \| (\d+) \|", (ROOT / "docs/threat-model.md").read_text(), re.MULTILINE
    )
)
MET_BY_PEERS = [
    "acquaintances", "bundle", "claims", "doubt", "envelope", "flow", "lines", "messages", "peer", "peering",
    "promises", "reconciliation", "requests", "rounds", "sending", "wire",
]  # fmt: skip
NOT_LIMITS = {"nodes.requests.PAUSE_MAX_MS", "nodes.peer.BACK_OFF_MAX_MS"}
"""How long we wait ourselves."""


@pytest.mark.parametrize("module", MET_BY_PEERS)
def test_every_limit_that_a_peer_can_meet_is_in_the_table(module: str) -> None:
    source = (ROOT / "nodes" / f"{module}.py").read_text(encoding="utf-8")
    named = {
        f"nodes.{module}.{name}"
        for name in re.findall(r"^([A-Z][A-Z_]*_MAX(?:_MS)?) = ", source, re.MULTILINE)
    }
    assert named - NOT_LIMITS <= TABLE.keys()
    assert importlib.import_module(f"nodes.{module}")
