"""Fills a store with a million authentic entries of other feeds, as an agency's relay would hold."""

from __future__ import annotations

import os
import time

from benchmarks.world import DISTRICT, SmallRealm
from ledger import Ledger
from ledger.feed import Entry, Opening, Run, feed_id, genesis_link, run_links, sign_link, sign_opening

__all__ = ["FEEDS", "fill_large"]

FEEDS = 200
RUN = 500


def fill_large(large: Ledger, realm: SmallRealm, count: int) -> float:
    """Import `count` entries in runs of 500, of 200 feeds; returns the seconds that importing took.

    The sealed bytes are random (a relay reads nothing); links and signatures are real.
    """
    node = realm.pharmacy.node
    seconds = 0.0
    per_feed = count // FEEDS
    for number in range(FEEDS):
        opening = Opening(node.realm.id, DISTRICT, 1 + number, os.urandom(16), 1, node.identity.certificates)
        signed = sign_opening(opening, node.keys.signing)
        feed, link = feed_id(signed), genesis_link(signed)
        large.exchange.import_openings([signed])
        for start in range(0, per_feed, RUN):
            document = b"\x5f\x02" + os.urandom(14)
            bare = []
            for sequence in range(start + 1, min(start + RUN, per_feed) + 1):
                if sequence % 5 == 0:
                    document = b"\x5f\x02" + os.urandom(14)
                bare.append(Entry(sequence, sequence, document, 1, 1, os.urandom(16), os.urandom(170)))
            last = bare[-1]
            links = run_links(node.realm.id, Run(feed, link, tuple(bare)))
            signature = sign_link(links[-1], node.keys.signing)
            signed_last = Entry(
                last.sequence,
                last.stamp,
                last.document,
                last.lane,
                last.epoch,
                last.commitment,
                last.sealed,
                signature,
            )
            run = Run(feed, link, (*bare[:-1], signed_last))
            begin = time.perf_counter()
            report = large.exchange.import_runs([run])
            seconds += time.perf_counter() - begin
            if report.new != len(run.entries):
                raise RuntimeError(f"{report.new} of {len(run.entries)} entries were taken")
            link = links[-1]
    return seconds
