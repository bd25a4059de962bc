"""What a swarm must have hit: a swarm that never exercised something proves nothing of it, and its verdict is *unknown*."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HITS", "OUTCOMES", "SWARM_MIN", "never_hit"]

SWARM_MIN = 200
"""Runs from which on everything is expected: fewer say nothing of what is rare."""
HITS = (
    # The network.
    "N1 cut", "N2 one-way cut", "N3 swizzle", "N4 delay", "N5 reorder", "N6 repeat", "N6 replay", "N7 drop", "N8 slow link",
    "N9 flapping link", "N9 connection reset in mid-message", "N10 bit flip", "N11 hub killed", "N11 hub restarted empty",
    "N11 swapped subject",
    # Disks.
    "D1 killed in mid-write", "D2 torn write", "D3 power cut", "D4 disk full", "D4 refused for want of room",
    "D5 input/output error", "D6 flip-at-rest", "D6 truncate", "D8 slow disk",
    # Processes, clocks, copies.
    "P1 kill -9", "P1 killed again right after recovery", "P2 paused", "P4 newer version", "C1 clock ahead",
    "C2 clock stepped back", "C3 clock drifts", "C4 suspended", "I1 disk rolled back", "I1 restored from backup",
    "I2 two copies at once", "I3 store under another key",
    # Hostile peers.
    "B1 forged entry", "B1 forged sender", "B1 forged sign of life", "B2 supplied without the role", "B4 withheld predecessor",
    "B4 entry ahead of what it follows", "B6 replayed elsewhere", "B7 revoked", "B7 revoked node writes on", "B8 stranger",
    "B9 rubbish in frames", "B10 flood", "B12 claims to hold all", "B12 lying acknowledgement", "B12 lying digest",
    "B12 says that both are in step", "B12 says that it is done",
    # People.
    "W1 cancelled while it is supplied", "W2 one fill at two counters", "W2 supplied at both",
    "W3 cancelled after it was supplied", "W4 supplied what was superseded", "W6 at the edge of validity",
    "a bundle was carried", "a bundle brought something", "a bundle was damaged on its way",
    # Now and then.
    "A6 replayed in another order", "A8 fork proven", "a revocation under a partition", "the clock went back between two acts",
    "found: double_dispensing", "found: forked_feed", "found: supplied_after_cancellation", "found: out_of_role",
    "found: clock_beyond_bound", "found: contested_custody",
)  # fmt: skip
"""Counted where a fault has its effect."""
OUTCOMES = (
    "claim: granted", "claim: not-found", "claim: unreachable", "fetch: fetched", "fetch: unreachable", "repeat: same",
    "dispense: done", "dispense: not-permitted", "emergency: done", "bearer: done", "part: done", "transfer: done",
    "delegate: done", "close-feed: done", "reverse: done", "correct: done", "resolve: done", "recover: done", "epoch: begun",
    "start: store-damaged", "failed: store-damaged", "other-key: invalid-input", "courier: taken in",
)  # fmt: skip
"""What acts and openings must have ended in, refusals and errors among them."""


def never_hit(hits: Mapping[str, int], outcomes: Mapping[str, int]) -> list[str]:
    """What was not exercised."""
    return [name for name in HITS if not hits.get(name)] + [
        name for name in OUTCOMES if not outcomes.get(name)
    ]
