"""Takes in new entries as they are told: chained if they follow what is held, ahead of their feed if they are urgent."""

from __future__ import annotations

from msgspec import Struct

from ledger.errors import LimitExceeded
from ledger.exchange import URGENT_LANE, Exchange
from ledger.feed import Run
from ledger.ids import FeedId, Link, NodeId
from nodes.doubt import Doubt
from nodes.wire import Live

__all__ = ["TakenLive", "take_live"]


class TakenLive(Struct, frozen=True, kw_only=True):
    """What became of one."""

    author: NodeId | None = None
    """None: its feed was never heard of."""
    district: str = ""
    new: bool = False
    gap: bool = False
    """Something that it follows is missing here."""
    refused: tuple[str, ...] = ()
    """Codes."""


def take_live(exchange: Exchange, doubt: Doubt, told: Live, now_ms: int) -> TakenLive:
    """Take in one entry.

    With the purse empty it is not looked at but taken for a gap: a round with somebody who is known brings it, if it is real.

    Raises:
        PeerFault: it is not authentic.
        StoreFull, StoreDamaged: this node's own disk.
    """
    feed, entry = FeedId(told.feed), told.entry
    written_by = exchange.written_by(feed)
    if written_by is None:
        return TakenLive(gap=True)
    author, district = written_by
    heads = exchange.frontier_of(feed)
    last = heads[-1][0]
    previous = Link(told.previous) if told.previous else heads[-1][1]
    if entry.sequence <= last:
        return TakenLive(author=author, district=district)
    follows = heads == ((entry.sequence - 1, previous),)
    ahead = bool(told.previous) and entry.lane <= URGENT_LANE
    if not follows and not ahead:
        return TakenLive(author=author, district=district, gap=True)
    try:
        doubt.check(now_ms)
    except LimitExceeded as error:
        return TakenLive(author=author, district=district, gap=True, refused=(error.code,))
    if follows:
        report = exchange.import_runs([Run(feed, previous, (entry,))])
        if not report.refused:
            doubt.removed()
        codes = tuple(code for _, code in report.refused)
        return TakenLive(author=author, district=district, new=report.new > 0, refused=codes)
    # The coin is not given back: each is a commit of its own, whoever wrote it, and what it overtakes is asked for anyway.
    new = exchange.import_detached(feed, previous, entry)
    return TakenLive(author=author, district=district, new=new, gap=True)
