"""A replica that began with nothing and was given every entry in another order (A6, A7): the judge of those that did not."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

from ledger import Ledger, SeededEntropy
from ledger.errors import PeerFault
from ledger.feed import Run, run_links
from ledger.ids import FeedId
from simulations.machines import Machine, template
from simulations.world import Finding

__all__ = ["check_replayed"]

ALL_BYTES = 1 << 40
PASSES_MAX = 200
"""Over what did not fit yet: in the worst order each brings one run more of a chain."""


def check_replayed(machine: Machine, home: Path, random: Random) -> bool:
    """Give a fresh copy of a machine's node all that it holds, shuffled and partly twice; False: nothing to compare.

    Raises:
        Finding: it does not come to the same.
    """
    assert machine.ledger is not None
    source = machine.ledger
    directory = home / f"{machine.name}-replayed"
    template().copy(machine.kind, directory)
    fresh = Ledger.open(
        directory, template().unlock, clock=machine.clock, entropy=SeededEntropy(random.getrandbits(32))
    )
    try:
        _give(source, fresh, random)
        fresh.stewardship.take_epochs()
        if fresh.node.keyring.digest() != source.node.keyring.digest():
            return False  # Keys that were lent, or that a machine set back has lost, travel by themselves.
        for district in source.exchange.districts():
            if fresh.exchange.district_digest(district) != source.exchange.district_digest(district):
                raise Finding(
                    f"A6: all that {machine.name} holds of {district}, in another order, is another digest"
                )
        if fresh.inquiry.state_digest() != source.inquiry.state_digest():
            raise Finding(f"A7: all that {machine.name} holds, in another order, is another state")
        return True
    finally:
        fresh.close()
        shutil.rmtree(directory)


def _give(source: Ledger, fresh: Ledger, random: Random) -> None:
    feeds = [
        feed
        for district in sorted(source.exchange.districts())
        for feed in source.exchange.frontier(district)
    ]
    random.shuffle(feeds)
    for feed in feeds:
        fresh.exchange.import_openings([source.exchange.opening(feed)])
    left = [run for feed in feeds for run in _pieces(source, feed, random)]
    left += random.sample(left, len(left) // 4)
    ahead = [
        found
        for district in sorted(source.exchange.districts())
        for link in source.exchange.detached_links(district)
        if (found := source.exchange.detached_entry(link)) is not None
    ]
    for _ in range(PASSES_MAX):
        random.shuffle(left)
        missing: list[Run] = []
        for run in left:
            report = fresh.exchange.import_runs([run])
            if report.refused:
                raise Finding(f"A6: a replica refuses what another holds: {report.refused[0][1]}")
            if report.gaps:
                missing.append(run)
        if len(missing) == len(left) or not missing:
            break
        left = missing
    for feed, previous, entry in ahead:
        try:
            fresh.exchange.import_detached(feed, previous, entry)
        except PeerFault as error:
            raise Finding(f"A6: a replica refuses an entry ahead that another holds: {error.code}") from error


def _pieces(source: Ledger, feed: FeedId, random: Random) -> list[Run]:
    """A feed's runs, cut where an entry bears a signature."""
    out: list[Run] = []
    realm = source.node.realm.id
    for run in source.exchange.runs(feed, (), ALL_BYTES):
        links, begin, previous = list(run_links(realm, run)), 0, run.previous
        for at, entry in enumerate(run.entries):
            if at + 1 < len(run.entries) and entry.signature is not None and random.random() < 0.3:
                out.append(Run(run.feed, previous, run.entries[begin : at + 1]))
                begin, previous = at + 1, links[at]
        out.append(Run(run.feed, previous, run.entries[begin:]))
    return out
