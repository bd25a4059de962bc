"""Fills stores with a million authentic entries of other feeds, or with thousands of feeds, as an agency's relay would hold."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import msgspec

from benchmarks.world import DISTRICT, SmallRealm
from ledger import Ledger, NodeRole
from ledger.feed import Entry, Opening, Run, feed_id, genesis_link, run_links, sign_link, sign_opening

__all__ = ["FEEDS", "fill_large", "fill_wide"]

FEEDS = 200
RUN = 400
FEEDS_PER_AUTHOR = 250
"""A node may have 256 in one district."""


def fill_large(large: Ledger | Sequence[Ledger], realm: SmallRealm, count: int) -> float:
    """Import `count` entries in runs of 400, of 200 feeds, into one or several; returns the seconds that importing took.

    The sealed bytes are random (a relay reads nothing); links and signatures are real.
    """
    node = realm.pharmacy.node
    ledgers = [large] if isinstance(large, Ledger) else large
    seconds = 0.0
    per_feed = count // FEEDS
    for number in range(FEEDS):
        opening = Opening(node.realm.id, DISTRICT, 1 + number, os.urandom(16), 1, node.identity.certificates)
        signed = sign_opening(opening, node.keys.signing)
        feed, link = feed_id(signed), genesis_link(signed)
        for ledger in ledgers:
            ledger.exchange.import_openings([signed])
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
            for ledger in ledgers:
                report = ledger.exchange.import_runs([run])
                if report.new != len(run.entries):
                    raise RuntimeError(f"{report.new} of {len(run.entries)} entries were taken")
            seconds += time.perf_counter() - begin
            link = links[-1]
    return seconds


def fill_wide(ledgers: Sequence[Ledger], realm: SmallRealm, count: int) -> None:
    """Import `count` feeds of one entry each, of as many authors as it takes."""
    author = realm.pharmacy.node
    for number in range(count):
        if number % FEEDS_PER_AUTHOR == 0:
            name = f"author-{number // FEEDS_PER_AUTHOR}"
            with realm.enrol(name, NodeRole.PHARMACY) as enrolled:
                author = enrolled.node
        opening = Opening(
            author.realm.id, DISTRICT, 1 + number, os.urandom(16), 1, author.identity.certificates
        )
        signed = sign_opening(opening, author.keys.signing)
        document = b"\x5f\x02" + os.urandom(14)
        bare = Entry(1, 1, document, 1, 1, os.urandom(16), os.urandom(170))
        (link,) = run_links(author.realm.id, Run(feed_id(signed), genesis_link(signed), (bare,)))
        entry = msgspec.structs.replace(bare, signature=sign_link(link, author.keys.signing))
        for ledger in ledgers:
            ledger.exchange.import_openings([signed])
            report = ledger.exchange.import_runs([Run(feed_id(signed), genesis_link(signed), (entry,))])
            if report.new != 1:
                raise RuntimeError("an entry was not taken")
