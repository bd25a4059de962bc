"""Custody: the exclusive right to a fill, as a hash-linked chain of tokens (R7; escrow, O'Neil 1986).

- A *token* is (link of the act that granted it, fill); it has one holder: a feed, or the bearer of a key.
- Issuing grants; a transfer spends one token and grants another; a supply spends one (a part supply grants the rest to
  its own feed); a reversal of a supply made on custody grants it back to the feed that supplied.
- A conveyance (`ledger.conveyances`) lets another feed act; the act then rests on it.
- Copies of the issuing event, by whoever read it, are one act: nobody takes a fill by writing its bytes again.
- An act is judged in its causal past. What it could not know makes it *contested*, never *breached*: a fork, a
  revocation, a recovery, a delegation elsewhere. Two acts that spend one token are a breach, seen without any order,
  unless the feed is forked.
- Nobody is blamed for what cannot be judged here: what rests, directly or not, on something not held is *unproven*.
- A token granted by an act that is itself not valid is tainted: who acts on it in good faith is contested, not blamed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from ledger.authority import Lack, Revocations
from ledger.conveyances import Conveyances
from ledger.events import (
    Basis,
    CustodyRecovered,
    CustodyTransferred,
    Dispensed,
    DispensingReversed,
    PrescriptionIssued,
)
from ledger.facts import Causality, Fact, references
from ledger.ids import FeedId, Link, tagged_hash

__all__ = [
    "Custody",
    "Standing",
    "Token",
    "bearer_message",
    "bearer_public_key",
    "judge_custody",
    "sign_bearer",
]


_ANY_FILL = 0
"""Of a reversal whose supply is not held, the fill is not known."""


class Standing(StrEnum):
    """How an act of custody is judged."""

    VALID = "valid"
    CONTESTED = "contested"
    BREACH = "breach"
    UNPROVEN = "unproven"
    """What it rests on, directly or not, is not held."""


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


class _Judge:
    def __init__(self, causality: Causality, conveyances: Conveyances, revocations: Revocations) -> None:
        self.causality, self.conveyances, self.revocations = causality, conveyances, revocations
        self.lacking = revocations.lacking
        self.tokens: dict[tuple[Link, int], Token] = {}
        self.by_fill: dict[int, list[Token]] = {}
        self.spends: dict[tuple[Link, int], list[Link]] = {}
        self.spent: dict[tuple[Link, int], int] = {}
        """The acts that spend a token, as a bit mask."""
        self.standing: dict[tuple[Link, int], Standing] = {}
        self.recoveries: dict[int, list[Link]] = {}
        self.supplied: dict[Link, Dispensed] = {}
        self.baseless: set[tuple[Link, int]] = set()
        """Acts by who had no right, and what was done on them: they leave nothing to hold."""
        self.unproven: set[tuple[Link, int]] = set()
        """Acts whose ground is not held, and what rests on them."""
        self.founder: dict[Link, Link] = {}
        """Of each issuing entry, the one that stands for all: whoever reads the event can write its bytes again."""
        self.foundings = 0
        self._with_gaps: int | None = None

    # --- grants -----------------------------------------------------------------------------------------------

    def grant(self, fact: Fact, fill: int, feed: bytes | None, key: bytes | None, *, tainted: bool) -> None:
        token = Token(fact.id, fill, None if feed is None else FeedId(feed), key, tainted)
        self.tokens[fact.id, fill] = token
        self.by_fill.setdefault(fill, []).append(token)

    def found(self, order: list[Fact]) -> None:
        """Copies of the issuing event are one act, as good as the best of them."""
        copies = [
            f
            for f in order
            if isinstance(f.event, PrescriptionIssued) and self.lacking.get(f.id) is not Lack.OUT_OF_ROLE
        ]
        good = [f for f in copies if f.id not in self.lacking and not self.causality.is_forked_at(f)]
        self.foundings = self.causality.mask(f.id for f in copies)
        for fact in sorted(good or copies, key=lambda f: f.detached)[:1]:
            self.founder = {copy.id: fact.id for copy in copies}
            if isinstance(fact.event, PrescriptionIssued):
                self.issued(fact, fact.event, tainted=not good)

    def issued(self, fact: Fact, event: PrescriptionIssued, *, tainted: bool) -> None:
        keys = {key.fill: key.public_key for key in event.bearer_keys}
        for fill in range(1, event.fills + 1):
            if fill in keys:
                self.grant(fact, fill, None, keys[fill], tainted=tainted)
            elif event.holder is not None:
                self.grant(fact, fill, event.holder, None, tainted=tainted)

    def transferred(self, fact: Fact, event: CustodyTransferred) -> None:
        keys = {key.fill: key.public_key for key in event.bearer_keys}
        named = Counter(right.fill for right in event.fills)
        for right in event.fills:
            if named[right.fill] > 1:  # It rests on two things at once: on none.
                self.standing[fact.id, right.fill] = Standing.BREACH
                continue
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
        original = self.causality.facts.get(Link(event.supply))
        judged = self.standing.get((Link(event.supply), supply.fill)) if supply else None
        if original is None or judged is Standing.UNPROVEN:
            self.unproven.add((fact.id, supply.fill if supply else _ANY_FILL))
        if (
            supply is None
            or original is None
            or supply.basis is not Basis.CUSTODY
            or original.feed != fact.feed
        ):
            return
        if judged not in (Standing.VALID, Standing.CONTESTED):
            return
        if self.lacking.get(fact.id) is Lack.OUT_OF_ROLE:
            return
        key = (Link(event.supply), supply.fill)
        if self.spent.get(key, 0) & self.causality.past(fact.id):
            return  # Reversed before, or the owed rest was supplied since: the chain goes on from there.
        self._note_spend(key, fact)
        if key in self.baseless:
            self.baseless.add((fact.id, supply.fill))
        # A revocation takes the reversal's effect; who acts on it without knowing of that is contested, not blamed.
        tainted = judged is not Standing.VALID or self.causality.is_forked_at(fact) or fact.id in self.lacking
        self.grant(fact, supply.fill, fact.feed, None, tainted=tainted)

    # --- spending ---------------------------------------------------------------------------------------------

    def spend(self, fact: Fact, rests_on: Link, fill: int) -> Standing:
        """Judge an act that spends the custody of a fill, and note that it does.

        An act by who never had the right is a breach and takes nothing: the token stays with its holder, whose own acts
        are judged as if it had not been, and what it grants is baseless.
        """
        token, path = self._token(fact, rests_on, fill)
        if token is None:
            standing = Standing.BREACH if self._can_be_judged(fact, rests_on, fill) else Standing.UNPROVEN
            self.baseless.add((fact.id, fill))
            if standing is Standing.UNPROVEN:
                self.unproven.add((fact.id, fill))
        elif self.lacking.get(fact.id) is Lack.OUT_OF_ROLE:
            standing = Standing.BREACH
            self.baseless.add((fact.id, fill))
        else:
            standing = self._judge(fact, token, path)
            self._note_spend((token.act, fill), fact)
            if (token.act, fill) in self.baseless:
                self.baseless.add((fact.id, fill))
        self.standing[fact.id, fill] = standing
        return standing

    def _can_be_judged(self, fact: Fact, rests_on: Link, fill: int) -> bool:
        """Whether an act that spends nothing known here is known to have had no right."""
        ground = self.causality.facts.get(rests_on)
        if ground is None or self.unproven & {(rests_on, fill), (rests_on, _ANY_FILL)}:
            return False
        # A conveyance does not say which right it conveyed: that may stand in what is not held.
        known = self.causality.past(fact.id) | self.causality.mask((fact.id,))
        return ground.document == fact.document or not self._gaps() & known

    def _gaps(self) -> int:
        """The facts that name something not held, as a bit mask."""
        if self._with_gaps is None:
            facts = self.causality.facts
            self._with_gaps = self.causality.mask(
                fact.id
                for fact in facts.values()
                if any(link not in facts for link in (*fact.parents, *references(fact.event)))
            )
        return self._with_gaps

    def _note_spend(self, key: tuple[Link, int], fact: Fact) -> None:
        self.spends.setdefault(key, []).append(fact.id)
        self.spent[key] = self.spent.get(key, 0) | 1 << self.causality.index[fact.id]

    def _token(self, fact: Fact, rests_on: Link, fill: int) -> tuple[Token | None, tuple[Link, ...]]:
        """What an act spends, and the conveyances by which its feed may: None if it has no right to anything."""
        past = self.causality.past(fact.id)
        rests_on = self.founder.get(rests_on, rests_on)
        direct = self.tokens.get((rests_on, fill))
        if direct is not None:
            return self._by_right(fact, direct, past)
        if not self.conveyances.any:
            return None, ()
        for token in reversed(self.by_fill.get(fill, ())):
            key = token.act, fill
            if self.spent.get(key, 0) & past or key in self.baseless or not self._is_known(token, past):
                continue
            found, path = self._by_right(fact, token, past)
            if found is not None and rests_on in path:
                return found, path
        return None, ()

    def _is_known(self, token: Token, past: int) -> bool:
        if token.act in self.founder:
            return bool(past & self.foundings)
        return self.causality.contains(past, token.act)

    def _by_right(self, fact: Fact, token: Token, past: int) -> tuple[Token | None, tuple[Link, ...]]:
        if token.feed is None:
            return None, ()
        if not self.conveyances.any:
            return (token if token.feed == fact.feed else None), ()
        acting = self.conveyances.acting_for(token.feed, past)
        return (token, acting.path) if acting.feed == fact.feed else (None, ())

    def _judge(self, fact: Fact, token: Token, path: tuple[Link, ...]) -> Standing:
        past = self.causality.past(fact.id)
        contested = token.tainted
        if self.spent.get((token.act, token.fill), 0) & past:
            return Standing.BREACH
        if path and self.conveyances.is_tainted(path):
            contested = True
        if self.lacking.get(fact.id) is Lack.REVOKED:
            if self.revocations.were_known(fact):
                return Standing.BREACH
            contested = True
        if self.causality.is_forked_at(fact):
            if self.causality.knows_of_fork(fact):
                return Standing.BREACH
            contested = True
        for recovery in self.recoveries.get(token.fill, ()):
            if self.causality.contains(past, recovery):
                return Standing.BREACH
            contested = contested or not self.causality.before(fact.id, recovery)
        return Standing.CONTESTED if contested else Standing.VALID

    def _bearer(self, fact: Fact, event: Dispensed, rests_on: Link) -> Standing:
        token = self.tokens.get((self.founder.get(rests_on, rests_on), event.fill))
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

    # --- the whole ------------------------------------------------------------------------------------------------

    def run(self) -> Custody:
        order = self.causality.in_order()
        for fact in order:
            if isinstance(fact.event, CustodyRecovered) and fact.id not in self.lacking:
                for fill in set(fact.event.fills):
                    self.recoveries.setdefault(fill, []).append(fact.id)
        self.found(order)
        for fact in order:
            match fact.event:
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
            valid = [act for act in acts if self.standing.get((act, fill)) is Standing.VALID]
            if len(valid) > 1:
                for act in valid:
                    self.standing[act, fill] = Standing.BREACH


def judge_custody(causality: Causality, conveyances: Conveyances, revocations: Revocations) -> Custody:
    """Judge every act of custody among the facts of a document and its district."""
    return _Judge(causality, conveyances, revocations).run()
