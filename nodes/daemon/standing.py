"""How this node stands with each peer, for status and metrics: what the conversations know."""

from __future__ import annotations

from ledger.clock import stamp_ms
from ledger.ids import NodeId
from nodes.daemon.status import LaneCounts, LaneTimes, PeerStatus
from nodes.peer import Peer
from nodes.peering import Peering
from nodes.ports import Frontier

__all__ = ["held_by_peers", "peer_statuses"]


def peer_statuses(peering: Peering) -> list[PeerStatus]:
    """All peers of this node. What a peer lacks is what came here since both last held the same: at most that."""
    return [_status(peering, peer) for peer in peering.peers]


def held_by_peers(peering: Peering) -> dict[NodeId, dict[str, Frontier]]:
    """What each peer is known to hold: what was held here when both last held the same. Nothing, if they never did."""
    exchange = peering.ledger.exchange
    return {
        peer.node: {}
        if peer.mark is None
        else {
            district: exchange.frontier_at(peer.mark, district)
            for district in peer.districts & exchange.districts()
        }
        for peer in peering.peers
    }


def _status(peering: Peering, peer: Peer) -> PeerStatus:
    certified = peering.peers.postbox.knows(peer.node)
    lacks: LaneCounts | None = None
    unsent: LaneTimes | None = None
    if peer.mark is not None:
        common = peer.districts & peering.ledger.exchange.districts()
        counts, times = [0, 0, 0], [0, 0, 0]
        for lane, count, stamp in peering.ledger.exchange.since(peer.mark, common):
            at = min(lane, 2)
            counts[at] += count
            times[at] = min(times[at] or stamp_ms(stamp), stamp_ms(stamp))
        lacks, unsent = LaneCounts(*counts), LaneTimes(*times)
    in_step = None if peer.mark is None else lacks is not None and lacks.total == 0
    return PeerStatus(
        node=peer.node.hex(),
        name="" if certified is None else certified.name,
        role="" if peer.role is None else peer.role.value,
        link=peer.link if peering.lines.is_up(peer.link) else "",
        heard_ms=peer.heard_ms or 0,
        in_step=in_step,
        they_lack=lacks,
        we_lack=LaneCounts() if in_step else None,
        oldest_unsent_ms=unsent,
        entries_in=peer.entries_in,
        entries_out=peer.entries_out,
        bytes_in=peer.bytes_in,
        bytes_out=peer.bytes_out,
        refused=len(peer.problems),
        last_refusal=peer.problems[-1] if peer.problems else "",
    )
