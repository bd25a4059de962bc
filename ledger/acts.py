"""What all acts of a ledger share: the command's id, what an event cites, the level and policy in force (R17)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TypedDict

from ledger.errors import InvalidInput, NotFound
from ledger.events import Event, FillRight, Level, Person
from ledger.exchange import Exchange
from ledger.history import holdings
from ledger.identity import RealmKind
from ledger.ids import DocumentId, FeedId, Link, NodeId, district_document
from ledger.inquiry import Inquiry
from ledger.lending import Lending
from ledger.node import Node, Receipt
from ledger.papers import Papers
from ledger.policy import Policy, decode_policy, default_policy
from ledger.stewardship import Stewardship

__all__ = ["Acts"]


class _Ground(TypedDict):
    """What every event cites: the governance and level it relied on."""

    governance: bytes
    level: Level


class Acts:
    """Base of the façade."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.exchange = Exchange(node)
        """Replication: what `nodes` connects to other ledgers."""
        self.stewardship = Stewardship(node)
        """Acts of the agency and of district authorities: admission, revocation, levels, policy."""
        self.inquiry = Inquiry(node)
        """Lookups across prescriptions."""
        self.lending = Lending(node, self.inquiry)
        """Keys of single documents for nodes outside their district."""
        self.papers = Papers(node)
        """The paper in the patient's hand."""
        self._policy: tuple[bytes, Policy] | None = None

    def policy(self) -> tuple[Policy, str]:
        """The policy in force and the law it cites. One that cannot be followed permits nothing beyond custody."""
        with self.node.lock:
            stated = self.node.reader.governance().policy
        if stated is None:
            return default_policy(self.node.realm.kind.value), ""
        if self._policy is None or self._policy[0] != stated[0]:
            try:
                self._policy = stated[0], decode_policy(stated[0])
            except InvalidInput:  # Every act asks for the policy: a bad one must not stop them all.
                self._policy = stated[0], default_policy(RealmKind.PRODUCTION.value)
        return self._policy[1], stated[1]

    def level(self, district: str) -> Level:
        """The level in force: as declared, or worse if the agency has been silent for the policy's hours."""
        with self.node.lock:
            declared = self.node.reader.governance().level(district)
            silence = self.inquiry.agency_silence_ms()
        return max(declared, self.policy()[0].level_after(silence), key=list(Level).index)

    def today(self) -> date:
        """The day (UTC) by this machine's clock."""
        return datetime.fromtimestamp(self.node.now_ms() / 1000, UTC).date()

    # --- within ----------------------------------------------------------------------------------------------------

    def _command(self, command: bytes | None) -> bytes:
        if command is None:
            return self.node.new_command()
        if len(command) != 16:
            raise InvalidInput(f"a command id has 16 bytes, not {len(command)}")
        return command

    def _before(self, command: bytes | None) -> Receipt | None:
        """The first result of a command given before: asked before anything that it names is looked up."""
        return None if command is None else self.node.first_result(self._command(command))

    def _ground(self, district: str) -> _Ground:
        return {"governance": self.node.reader.governance().mark, "level": self.level(district)}

    def _district(self, document: DocumentId) -> str:
        district = self.node.reader.district(document)
        return self.node.identity.district if district is None else district

    def _write(
        self,
        document: DocumentId,
        kind: type[Event],
        person: Person,
        command: bytes | None,
        /,
        **fields: object,
    ) -> Receipt:
        node = self.node
        with node.lock:
            command = self._command(command)
            done = node.first_result(command)
            if done is not None:
                return done
            district = self._district(document)
            event = kind(person=person, command=command, **self._ground(district), **fields)  # type: ignore[arg-type]
            return node.write(district, document, event)

    def _district_act(
        self, district: str, kind: type[Event], person: Person, command: bytes | None, /, **fields: object
    ) -> Receipt:
        node = self.node
        with node.lock:
            command = self._command(command)
            done = node.first_result(command)
            if done is not None:
                return done
            event = kind(person=person, command=command, **self._ground(district), **fields)  # type: ignore[arg-type]
            return node.write(district, district_document(district), event)

    def _heads(self, document: DocumentId | None) -> tuple[Link, ...]:
        state = None if document is None else self.node.reader.state(document)
        return () if state is None else state.heads

    def _feed(self, node: NodeId, district: str) -> FeedId:
        feed = self.node.feed_of(node, district)
        if feed is None:
            raise NotFound("no feed of that node is known in the district", advice="replicate with it first")
        return feed

    def _holdings(self, document: DocumentId, district: str) -> Sequence[FillRight]:
        state = self.node.reader.state(document)
        own = self._holding_feed(district)
        if state is None or own is None:
            return ()
        return holdings(state.prescription, own, unread=state.unread)

    def _holding_feed(self, district: str) -> FeedId | None:
        """This node's feed, if it may hold anything: a node that was revoked, or whoever admitted it, may not.

        The fold knows whose feed it is only where it wrote something; the node itself always knows.
        """
        identity, governance = self.node.identity, self.node.reader.governance()
        vouching = (identity.node, identity.admitted_by)
        if any(node is not None and governance.revocation(node) is not None for node in vouching):
            return None
        return self.node.writer.feed(district)
