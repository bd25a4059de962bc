"""A hub that drops, repeats, delays, swaps and spoils: it costs time, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.book import AGREE_SECONDS, Book, agree
from tests.cluster.work import working
from tests.lab.cluster import open_cluster, until
from tests.lab.hostile import Faults, HostileHub, in_thread
from tests.lab.ways import Relays

FAULTS = Faults(drop=0.1, repeat=0.1, late=0.15, swap=0.05, spoil=0.05, cut=0.03)
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(2, 8))]
THROUGH_SECONDS = 300
"""With a third of all messages gone or spoiled, rounds are given up and begun again."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lying_hub_costs_time_only(seed: int, tmp_path: Path) -> None:
    book = Book()
    with in_thread(lambda: HostileHub(seed)) as hub, open_cluster(Relays.kind, tmp_path) as cluster:
        for member in cluster:
            member.configure(url=hub.url)
            member.process.start()
        for member in cluster:
            until(member.up, AGREE_SECONDS, f"the link of {member.name}")
        agree(cluster, AGREE_SECONDS)
        hub.faults = FAULTS
        with working(cluster, book, seed=seed, pause_s=0.1) as work:
            work.wait_for("dispense 1", 5, THROUGH_SECONDS)
            work.wait_for("prescribe", 30)
        if seed > 1:
            # Even so all come to hold the same.
            print(f"the same, through it all, after {agree(cluster, THROUGH_SECONDS):.1f} s")
        hub.faults = Faults()
        took = agree(cluster, AGREE_SECONDS)
        counts = hub.counts
        print(f"seed {seed}: the same after {took:.1f} s; {counts}; {book.counts()}")
        assert all(counts.values()), "a fault never happened"
        book.check(cluster)
        refusals = {code for member in cluster for code in member.status().refusals}
        print(f"refused: {sorted(refusals)}")
        assert {"malformed", "not-authentic"} <= refusals
