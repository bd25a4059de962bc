"""Acts of custody: pass fills on, recover them, delegate a district, place them before the outage (R7)."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from ledger.acts import Acts
from ledger.custody import bearer_public_key
from ledger.errors import NotPermitted
from ledger.events import (
    CustodyDelegated,
    CustodyDelegationEnded,
    CustodyRecovered,
    CustodyTransferred,
    FeedClosed,
    FillKey,
    Person,
)
from ledger.identity import NodeRole
from ledger.ids import DocumentId, FeedId, Link, NodeId
from ledger.node import Receipt
from ledger.placement import CustodyPlan, plan_moves

__all__ = ["CustodyActs"]

log = structlog.get_logger("rxledger")


class CustodyActs(Acts):
    """The part of the façade that moves fills."""

    def transfer(
        self, document: DocumentId, fills: Sequence[int], to: NodeId | None, *, person: Person,
        command: bytes | None = None,
    ) -> Receipt:  # fmt: skip
        """Pass fills that this node holds to another node; to None: to whoever carries the paper.

        Raises:
            NotPermitted: this node does not hold one of the fills.
            NotFound: no feed of that node is known in the district.
        """
        node = self.node
        with node.lock:
            command = self._command(command)
            done = node.first_result(command)
            if done is not None:
                return done
            district = self._district(document)
            held = {right.fill: right for right in self._holdings(document, district)}
            missing = [fill for fill in fills if fill not in held]
            if missing or not fills:
                raise NotPermitted(f"this node does not hold fills {missing}", reasons=("not-holder",))
            target: FeedId | None = None
            keys: tuple[FillKey, ...] = ()
            if to is None:
                keys = tuple(
                    FillKey(f, bearer_public_key(s))
                    for f, s in self.papers.seeds(command, max(fills))
                    if f in fills
                )
            else:
                target = self._feed(to, district)
            return self._write(
                document, CustodyTransferred, person, command,
                fills=tuple(held[fill] for fill in sorted(fills)), to=target, bearer_keys=keys,
            )  # fmt: skip

    def recover(
        self,
        document: DocumentId,
        fills: Sequence[int],
        *,
        person: Person,
        reason: str,
        command: bytes | None = None,
    ) -> Receipt:
        """Agency: the holder is dead. From then on the fills may be supplied with risk; confers no custody."""
        if self.node.identity.role is not NodeRole.AGENCY:
            raise NotPermitted("only the agency recovers custody")
        return self._write(
            document, CustodyRecovered, person, command, fills=tuple(sorted(fills)), reason=reason
        )

    def delegate(self, district: str, to: NodeId, *, person: Person, command: bytes | None = None) -> Receipt:
        """Move everything this node's feed in a district holds, or will be named for, to another node."""
        with self.node.lock:
            return self._before(command) or self._district_act(
                district, CustodyDelegated, person, command, to=self._feed(to, district)
            )

    def end_delegation(
        self, district: str, delegation: Link, *, person: Person, command: bytes | None = None
    ) -> Receipt:
        """The delegate gives back what it has not spent."""
        return self._district_act(district, CustodyDelegationEnded, person, command, delegation=delegation)

    def close_feed(
        self, district: str, successor: NodeId, *, person: Person, command: bytes | None = None
    ) -> Receipt:
        """A planned change of computer: this feed's last entry names who follows."""
        with self.node.lock:
            return self._before(command) or self._district_act(
                district, FeedClosed, person, command, successor=self._feed(successor, district)
            )

    def plan_custody(self, plan: CustodyPlan, *, person: Person) -> list[Receipt]:
        """The nightly run: pass on what falls due, to where it can be dispensed without a network."""
        receipts = []
        with self.node.lock:
            for district in self.node.held_districts():
                own = self._holding_feed(district)
                if own is None:
                    continue
                for document in list(self.node.store.documents(district)):
                    state = self.node.reader.state(document)
                    if state is None or self.node.reader.district(document) != district:
                        continue
                    moves = plan_moves(
                        state.prescription, district=district, own=own, plan=plan, today=self.today(),
                        feed_of=self.node.feed_of, unread=state.unread,
                    )  # fmt: skip
                    for move in moves:
                        try:
                            receipts.append(
                                self._write(
                                    document, CustodyTransferred, person, None, fills=move.fills, to=move.to
                                )
                            )
                        except NotPermitted:
                            # No room on this one, which others may have seen to: the rest must not wait for it.
                            log.warning("plan.refused", document=document.hex())
        return receipts
