"""Custody: the exclusive right to a fill, as a hash-linked chain of tokens (R7; escrow, O'Neil 1986).

- A *token* is (link of the act that granted it, fill); it has one holder: a feed, or the bearer of a key.
- Issuing grants; a transfer spends one token and grants another; a supply spends one (a part supply grants the rest to
  its own feed); a reversal of a supply made on custody grants it back to the feed that supplied.
- A delegation (or a closed feed) conveys everything a feed holds or will be named for, unspent at that position.
- An act is judged in its causal past. What it could not know makes it *contested*, never *breached*: a fork, a
  revocation, a recovery, a delegation elsewhere. Two acts that spend one token are a breach, seen without any order,
  unless the feed is forked.
- A token granted by an act that is itself not valid is tainted: who acts on it in good faith is contested, not blamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from ledger.authority import Lack, knew_of_revocation
from ledger.events import (
    Basis,
    CustodyDelegated,
    CustodyDelegationEnded,
    CustodyRecovered,
    CustodyTransferred,
    Dispensed,
    DispensingReversed,
    FeedClosed,
    PrescriptionIssued,
)
from ledger.facts import Causality, Fact
from ledger.governance import GovernanceView
from ledger.ids import FeedId, Link, NodeId, tagged_hash

__all__ = [
    "Conveyances",
    "Custody",
    "Standing",
    "Token",
    "bearer_message",
    "bearer_public_key",
    "judge_custody",
    "sign_bearer",
]

CONVEYANCE_STEPS_MAX = 16
"""A feed delegates to one that closed to one that …: longer chains than this are not followed."""


class Standing(StrEnum):
    """How an act of custody is judged."""

    VALID = "valid"
    CONTESTED = "contested"
    BREACH = "breach"
    UNPROVEN = "unproven"
    """What it rests on is not held."""


class Token(Struct, frozen=True):
    """The right to one fill."""

    act: Link
    fill: int
    feed: FeedId | None
    bearer_key: bytes | None
    tainted: bool


class Custody(Struct, frozen=True):
    """The judged acts and what is left unspent."""

    standing: Mapping[tuple[Link, int], Standing]
    unspent: tuple[Token, ...]
    recovered: frozenset[int]


def bearer_message(document: bytes, fill: int, feed: bytes) -> bytes:
    """What a bearer key signs when a pharmacy's feed spends it."""
    return b"rxledger/1 sign bearer\0" + tagged_hash("bearer", document, bytes([fill]), feed)


def bearer_public_key(seed: bytes) -> bytes:
    """Public half (32 raw bytes) of a bearer fill's seed (32 bytes)."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign_bearer(seed: bytes, document: bytes, fill: int, feed: bytes) -> bytes:
    """Spend a bearer fill for a feed."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(bearer_message(document, fill, feed))


class Conveyances:
    """Delegations and closed feeds of a district: who acts for a feed, seen from a causal past or from the whole set."""

    def __init__(self, causality: Causality, lacking: Mapping[Link, Lack]) -> None:
        self._causality = causality
        self._by_feed: dict[FeedId, list[Fact]] = {}
        self._ends: dict[Link, list[Fact]] = {}
        for fact in causality.in_order():
            event = fact.event
            if lacking.get(fact.id) is Lack.OUT_OF_ROLE:
                continue
            if isinstance(event, CustodyDelegated | FeedClosed):
                self._by_feed.setdefault(fact.feed, []).append(fact)
            elif isinstance(event, CustodyDelegationEnded):
                self._ends.setdefault(Link(event.delegation), []).append(fact)
        self.any = bool(self._by_feed)

    def acting_for(self, feed: FeedId, scope: int | None) -> tuple[FeedId, Link | None]:
        """The feed that acts for one, and the conveyance on which its acts rest; `scope` is a causal past or all."""
        rests: Link | None = None
        for _ in range(CONVEYANCE_STEPS_MAX):
            step = self._step(feed, scope)
            if step is None:
                return feed, rests
            following, link = step
            rests = link
            if following == feed:
                return feed, rests
            feed = following
        return feed, rests

    def _step(self, feed: FeedId, scope: int | None) -> tuple[FeedId, Link] | None:
        acts = [f for f in self._by_feed.get(feed, ()) if self._in(f, scope)]
        acts.sort(key=lambda f: (f.sequence, f.id))
        ended: Link | None = None
        for fact in acts:
            event = fact.event
            if isinstance(event, FeedClosed):
                return FeedId(event.successor), fact.id
            if isinstance(event, CustodyDelegated):
                end = self._end_of(fact, FeedId(event.to), scope)
                if end is None:
                    return FeedId(event.to), fact.id  # One at a time: a later one while this is open is void.
                ended = end
        return None if ended is None else (feed, ended)

    def _end_of(self, delegation: Fact, delegate: FeedId, scope: int | None) -> Link | None:
        ends = [f for f in self._ends.get(delegation.id, ()) if self._in(f, scope) and f.feed == delegate]
        return min(ends, key=lambda f: (f.sequence, f.id)).id if ends else None

    def _in(self, fact: Fact, scope: int | None) -> bool:
        return scope is None or self._causality.contains(scope, fact.id)

    def conveys(self, link: Link) -> bool:
        """Whether a fact is a conveyance or the end of one."""
        fact = self._causality.facts.get(link)
        return fact is not None and isinstance(
            fact.event, CustodyDelegated | FeedClosed | CustodyDelegationEnded
        )


class _Judge:
    def __init__(
        self,
        causality: Causality,
        conveyances: Conveyances,
        lacking: Mapping[Link, Lack],
        governance: GovernanceView,
    ) -> None:
        self.causality, self.conveyances = causality, conveyances
        self.lacking, self.governance = lacking, governance
        self.tokens: dict[tuple[Link, int], Token] = {}
        self.spends: dict[tuple[Link, int], list[Fact]] = {}
        self.standing: dict[tuple[Link, int], Standing] = {}
        self.recoveries: dict[int, list[Link]] = {}
        self.supplied: dict[Link, Dispensed] = {}
        self.baseless: set[tuple[Link, int]] = set()
        """Acts by who had no right, and what was done on them: they leave nothing to hold."""

    # --- grants -----------------------------------------------------------------------------------------------

    def grant(self, fact: Fact, fill: int, feed: bytes | None, key: bytes | None, *, tainted: bool) -> None:
        holder = None if feed is None else FeedId(feed)
        self.tokens[fact.id, fill] = Token(fact.id, fill, holder, key, tainted)

    def issued(self, fact: Fact, event: PrescriptionIssued) -> None:
        if fact.id in self.lacking:
            tainted = True
            if self.lacking[fact.id] is Lack.OUT_OF_ROLE:
                return
        else:
            tainted = self._forked_since(fact)
        keys = {key.fill: key.public_key for key in event.bearer_keys}
        for fill in range(1, event.fills + 1):
            if fill in keys:
                self.grant(fact, fill, None, keys[fill], tainted=tainted)
            elif event.holder is not None:
                self.grant(fact, fill, event.holder, None, tainted=tainted)

    def transferred(self, fact: Fact, event: CustodyTransferred) -> None:
        keys = {key.fill: key.public_key for key in event.bearer_keys}
        for right in event.fills:
            standing = self.spend(fact, Link(right.rests_on), right.fill)
            if standing is Standing.UNPROVEN or self.lacking.get(fact.id) is Lack.OUT_OF_ROLE:
                continue
            key = keys.get(right.fill) if event.to is None else None
            if event.to is not None or key is not None:
                self.grant(fact, right.fill, event.to, key, tainted=standing is not Standing.VALID)

    def dispensed(self, fact: Fact, event: Dispensed) -> None:
        self.supplied[fact.id] = event
        if event.rests_on is None:
            return
        rests_on = Link(event.rests_on)
        if event.basis is Basis.BEARER:
            self.standing[fact.id, event.fill] = self._bearer(fact, event, rests_on)
        elif event.basis is Basis.CUSTODY:
            standing = self.spend(fact, rests_on, event.fill)
            if event.part and standing in (Standing.VALID, Standing.CONTESTED):
                self.grant(fact, event.fill, fact.feed, None, tainted=standing is not Standing.VALID)

    def reversed(self, fact: Fact, event: DispensingReversed) -> None:
        supply = self.supplied.get(Link(event.supply))
        judged = self.standing.get((Link(event.supply), supply.fill)) if supply else None
        original = self.causality.facts.get(Link(event.supply))
        if (
            supply is None
            or original is None
            or supply.basis is not Basis.CUSTODY
            or original.feed != fact.feed
        ):
            return
        if judged not in (Standing.VALID, Standing.CONTESTED):
            return
        key = (Link(event.supply), supply.fill)
        earlier = self.spends.get(key, ())
        if any(self.causality.before(spent.id, fact.id) for spent in earlier):
            return  # Reversed before, or the owed rest was supplied since: the chain goes on from there.
        self.spends.setdefault(key, []).append(fact)
        if key in self.baseless:
            self.baseless.add((fact.id, supply.fill))
        tainted = judged is not Standing.VALID or fact.id in self.lacking or self._forked_since(fact)
        self.grant(fact, supply.fill, fact.feed, None, tainted=tainted)

    # --- spending ---------------------------------------------------------------------------------------------

    def spend(self, fact: Fact, rests_on: Link, fill: int) -> Standing:
        """Judge an act that spends the custody of a fill, and note that it does.

        An act by who never had the right is a breach and takes nothing: the token stays with its holder, whose own acts
        are judged as if it had not been, and what it grants is baseless.
        """
        token = self._token(fact, rests_on, fill)
        if token is None:
            known = rests_on in self.causality.facts
            standing = Standing.BREACH if known else Standing.UNPROVEN
            self.baseless.add((fact.id, fill))
        elif not self._may_spend(fact, token, rests_on):
            standing = Standing.BREACH
            self.baseless.add((fact.id, fill))
        else:
            standing = self._judge(fact, token)
            self.spends.setdefault((token.act, fill), []).append(fact)
            if (token.act, fill) in self.baseless:
                self.baseless.add((fact.id, fill))
        self.standing[fact.id, fill] = standing
        return standing

    def _token(self, fact: Fact, rests_on: Link, fill: int) -> Token | None:
        direct = self.tokens.get((rests_on, fill))
        if direct is not None or not self.conveyances.conveys(rests_on):
            return direct
        past = self.causality.past(fact.id)
        found: Token | None = None
        for (act, number), token in self.tokens.items():
            if number != fill or token.feed is None or not self.causality.contains(past, act):
                continue
            if (act, fill) in self.baseless:
                continue
            if any(self.causality.contains(past, spent.id) for spent in self.spends.get((act, fill), ())):
                continue
            if self.conveyances.acting_for(token.feed, past) == (fact.feed, rests_on):
                found = token
        return found

    def _may_spend(self, fact: Fact, token: Token, rests_on: Link) -> bool:
        if self.lacking.get(fact.id) is Lack.OUT_OF_ROLE:
            return False
        return self._entitled(fact, token, rests_on, self.causality.past(fact.id))

    def _judge(self, fact: Fact, token: Token) -> Standing:
        past = self.causality.past(fact.id)
        if any(
            self.causality.contains(past, spent.id) for spent in self.spends.get((token.act, token.fill), ())
        ):
            return Standing.BREACH
        contested = token.tainted
        if self.lacking.get(fact.id) is Lack.REVOKED:
            if knew_of_revocation(fact, self.governance):
                return Standing.BREACH
            contested = True
        if self._forked_since(fact):
            if self._knew_of_fork(fact, past):
                return Standing.BREACH
            contested = True
        for recovery in self.recoveries.get(token.fill, ()):
            if self.causality.contains(past, recovery):
                return Standing.BREACH
            contested = contested or not self.causality.before(fact.id, recovery)
        return Standing.CONTESTED if contested else Standing.VALID

    def _entitled(self, fact: Fact, token: Token, rests_on: Link, past: int) -> bool:
        if token.feed is None:
            return False
        if not self.conveyances.any:
            return token.feed == fact.feed
        acting, conveyed = self.conveyances.acting_for(token.feed, past)
        return acting == fact.feed and rests_on in (token.act, conveyed)

    def _bearer(self, fact: Fact, event: Dispensed, rests_on: Link) -> Standing:
        token = self.tokens.get((rests_on, event.fill))
        if token is None:
            return Standing.BREACH if rests_on in self.causality.facts else Standing.UNPROVEN
        if token.bearer_key is None or event.bearer_signature is None:
            return Standing.BREACH
        message = bearer_message(fact.document, event.fill, fact.feed)
        try:
            Ed25519PublicKey.from_public_bytes(token.bearer_key).verify(event.bearer_signature, message)
        except (InvalidSignature, ValueError):
            return Standing.BREACH
        return Standing.CONTESTED if token.tainted or fact.id in self.lacking else Standing.VALID

    # --- forks --------------------------------------------------------------------------------------------------

    def _forked_since(self, fact: Fact) -> bool:
        forked_at = self.causality.branches.forked_at.get(fact.feed)
        return forked_at is not None and fact.sequence >= forked_at

    def _knew_of_fork(self, fact: Fact, past: int) -> bool:
        branches = self.causality.branches
        return any(
            other.feed == fact.feed
            and self.causality.contains(past, other.id)
            and not branches.is_before(other, fact)
            for other in self.causality.facts.values()
        )

    # --- the whole ------------------------------------------------------------------------------------------------

    def run(self) -> Custody:
        order = self.causality.in_order()
        for fact in order:
            if isinstance(fact.event, CustodyRecovered) and fact.id not in self.lacking:
                for fill in fact.event.fills:
                    self.recoveries.setdefault(fill, []).append(fact.id)
        for fact in order:
            match fact.event:
                case PrescriptionIssued() as event:
                    self.issued(fact, event)
                case CustodyTransferred() as event:
                    self.transferred(fact, event)
                case Dispensed() as event:
                    self.dispensed(fact, event)
                case DispensingReversed() as event:
                    self.reversed(fact, event)
                case _:
                    pass
        self._double_spends()
        unspent = tuple(
            token
            for key, token in sorted(self.tokens.items())
            if key not in self.baseless and (token.bearer_key or not self.spends.get(key))
        )
        return Custody(self.standing, unspent, frozenset(self.recoveries))

    def _double_spends(self) -> None:
        """Two acts that spend one token and are both unblamed: a breach of both, without any order."""
        for (_, fill), acts in self.spends.items():
            valid = [a for a in acts if self.standing.get((a.id, fill)) is Standing.VALID]
            if len(valid) > 1:
                for act in valid:
                    self.standing[act.id, fill] = Standing.BREACH


def judge_custody(
    causality: Causality, lacking: Mapping[Link, Lack], governance: GovernanceView
) -> tuple[Custody, Conveyances]:
    """Judge every act of custody among the facts of a document and its district."""
    conveyances = Conveyances(causality, lacking)
    return _Judge(causality, conveyances, lacking, governance).run(), conveyances


def holder_is_unfit(
    feed: FeedId, author: NodeId | None, causality: Causality, governance: GovernanceView
) -> bool:
    """What a forked feed or a revoked node holds is never again dispensed on custody."""
    if feed in causality.branches.forked_at:
        return True
    return author is not None and governance.revocation(author) is not None
