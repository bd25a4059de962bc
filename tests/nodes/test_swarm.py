"""Many nodes on one hub that comes back after an outage: all become whole, none is starved, nothing ends (R4, R15).

Real processes, servers, stores and connections; `make bench` states the figures of 1,400 (``--only swarm``).
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from benchmarks.network_swarm import WITHIN_SECONDS, districts, return_of


@pytest.mark.parametrize("nodes", [1, 7, 50, 200, 1_400])
def test_districts_hold_all_nodes_and_are_unequal_as_municipalities_are(nodes: int) -> None:
    sizes = list(districts(nodes))
    assert sum(sizes) == nodes
    assert all(size >= 1 for size in sizes)
    if nodes == 1_400:
        assert max(sizes) == 140
        assert statistics.median(sizes) == 5


@pytest.mark.nightly
@pytest.mark.parametrize("nodes", [30, 120])
def test_after_an_outage_of_a_day_every_node_is_whole_and_none_is_starved(tmp_path: Path, nodes: int) -> None:
    outcome = return_of(nodes, tmp_path, vain_s=10)
    assert outcome.equal
    assert len(outcome.seconds) == nodes
    assert outcome.seconds[-1] <= WITHIN_SECONDS
    # The back-off that the outage taught them is most of the time; the slowest waits for no more than the rest together.
    assert outcome.seconds[-1] <= 3 * statistics.median(outcome.seconds) + 10
    assert set(outcome.problems) <= {"no-answer"}
