"""Who may log in to the servers of a realm: read from a node's ledger, never from a list of its own.

- Admitted by governance, or known by a feed (nodes that a district authority admitted): each with a verified chain.
- *Revoked*: the node, or who admitted it. What the ledger's judges call revoked, no server lists.
- *Expired*: a certificate past its date stays usable for the policy's grace period, and is marked; after it the node
  has *lapsed* and is not listed. What to do is to renew, so both are reported.
- A ledger that has not heard of a revocation cannot apply it: what this says is as old as the ledger's governance.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from ledger import Ledger
from ledger.errors import PeerFault
from ledger.identity import Certified, NodeRole, is_expired, verify_chain
from ledger.ids import GOVERNANCE, NodeId
from nodes.nats.nkeys import user_nkey

__all__ = ["EVERYWHERE", "Member", "Roster", "read_roster"]

DAY_MS = 86_400_000
EVERYWHERE = frozenset({NodeRole.AGENCY, NodeRole.RELAY})
"""Roles that serve every district."""


class Member(Struct, frozen=True, kw_only=True):
    """A node that may log in. Its name is left out: servers, their files and logs need none (R13)."""

    node: NodeId
    role: NodeRole
    user: str
    """Its NKey, ``U…``."""
    districts: tuple[str, ...]
    """Of which it holds or receives content; sorted, without governance."""
    expired: bool = False
    """Marked: past the date of its certificate, within the grace period."""

    def serves(self, districts: Iterable[str]) -> bool:
        """Whether it has business in one of these districts."""
        return self.role in EVERYWHERE or not set(self.districts).isdisjoint(districts)


class Roster(Struct, frozen=True, kw_only=True):
    """All nodes of a realm that a ledger knows, by what servers shall do with them."""

    members: tuple[Member, ...]
    """Sorted by node."""
    revoked: tuple[NodeId, ...]
    lapsed: tuple[NodeId, ...]
    """Expired for longer than the grace period."""


def read_roster(ledger: Ledger, now_ms: int) -> Roster:
    """Read the nodes of a realm from the ledger of any of its nodes; the agency's knows most."""
    node = ledger.node
    with node.lock:
        governance = node.reader.governance()
        grace_ms = ledger.policy()[0].certificate_grace_days * DAY_MS
        known, districts = _known(ledger)
        members: list[Member] = []
        revoked, lapsed = [], []
        for who, certified in sorted(known.items()):
            vouching = [who] if certified.admitted_by is None else [who, certified.admitted_by]
            if any(governance.revocation(one) is not None for one in vouching):
                revoked.append(who)
            elif now_ms > certified.not_after_ms + grace_ms:
                lapsed.append(who)
            else:
                held = districts[who] | {d for d, _, _ in governance.wrapped(who)} | {certified.district}
                members.append(
                    Member(
                        node=who,
                        role=certified.role,
                        user=user_nkey(certified.public_key),
                        districts=tuple(sorted(held - {"", GOVERNANCE})),
                        expired=is_expired(certified, now_ms),
                    )
                )
    return Roster(members=tuple(members), revoked=tuple(revoked), lapsed=tuple(lapsed))


def _known(ledger: Ledger) -> tuple[dict[NodeId, Certified], dict[NodeId, set[str]]]:
    """The newest certificate of each node, and the districts in which it writes."""
    node = ledger.node
    known: dict[NodeId, Certified] = {}
    districts: dict[NodeId, set[str]] = {}

    def take(certified: Certified) -> None:
        districts.setdefault(certified.node, set())
        before = known.get(certified.node)
        if before is None or before.not_after_ms < certified.not_after_ms:
            known[certified.node] = certified

    take(node.identity)
    issuings: dict[bytes, None] = {node.identity.certificates[-1]: None}
    for row in node.store.feeds():
        certified, _ = node.reader.author(row.feed)
        take(certified)
        districts[certified.node].add(row.district)
        issuings[certified.certificates[-1]] = None
    for announced in node.reader.governance().admitted:
        for issuing in issuings:
            try:
                take(verify_chain(node.realm, (announced, issuing)))
                break
            except PeerFault:
                continue  # Under another issuing certificate: known by its feed, if at all.
    return known, districts
