"""One prescription as a set of facts, written by anybody, honest or not, in any place: no keys, no disk.

Unlike `model_realm`, whose nodes know what they hold, an act here knows exactly what the test says it knows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from datetime import date
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from ledger import events as e
from ledger.clock import pack_stamp
from ledger.custody import bearer_public_key, sign_bearer
from ledger.facts import Branches, Fact
from ledger.governance import GovernanceEntry, GovernanceView, fold_governance
from ledger.history import FillState, Prescription, fold
from ledger.identity import NodeRole
from ledger.ids import DocumentId, FeedId, Link, NodeId, district_document, document_id

DISTRICT = "SE-AB-0180"
PLACE = district_document(DISTRICT)
NOW_MS = 1_800_000_000_000  # 2027-01-15
SIZE = 100
PERSON = e.Person(e.Coded("hosp", "1"), e.PersonRole.PHARMACIST)
SEEDS = {fill: hashlib.sha256(b"seed %d" % fill).digest() for fill in range(1, 100)}
T = TypeVar("T", bound=e.Event)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class Part(Struct, frozen=True):
    branch: int
    parent: int
    sequence: int


class Author:
    """A feed of a node. `twin` makes another branch of the same feed."""

    def __init__(
        self, case: Case, name: str, role: NodeRole, incarnation: int = 1, admitted_by: NodeId | None = None
    ) -> None:
        self.case, self.name, self.role, self.admitted_by = case, name, role, admitted_by
        self.node = NodeId(digest(name)[:16])
        self.feed = FeedId(digest(f"{name} {incarnation}")[:16])
        self.path: list[Fact] = []
        case.authors.append(self)

    def twin(self) -> Author:
        """An image of this author as it is now: whatever both write from here on forks the feed."""
        copy = Author(self.case, self.name, self.role, admitted_by=self.admitted_by)
        copy.feed, copy.path = self.feed, list(self.path)
        return copy


class Case:
    """A prescription of `fills` fills of `SIZE` units, held by the pharmacy Eken unless said otherwise."""

    def __init__(
        self, fills: int = 3, *, held: bool = True, bearer: Iterable[int] = (), **fields: object
    ) -> None:
        self.facts: dict[Link, Fact] = {}
        self.commands = self.clock = 0
        self.governing: list[GovernanceEntry] = []
        self.authors: list[Author] = []
        self.doctor = Author(self, "doctor", NodeRole.PRESCRIBER)
        self.eken, self.bjorken, self.linden, self.aspen = (
            Author(self, name, NodeRole.PHARMACY) for name in ("eken", "bjorken", "linden", "aspen")
        )
        self.agency = Author(self, "agency", NodeRole.AGENCY)
        self.authority = Author(self, "authority", NodeRole.AUTHORITY)
        self.relay = Author(self, "relay", NodeRole.RELAY)
        stated: dict[str, object] = {
            "command": self.command(), "nonce": bytes(16), "district": DISTRICT, "issued": "2027-01-01",
            "valid_until": "2027-12-31", "patient": e.Patient(name="Test", birth_date="1950-01-01"),
            "product": e.Product(pack=e.Coded("npl", "1"), name="Metformin", atc="A10BA02", pack_quantity=SIZE),
            "dosage": "1 tablett", "fills": fills, "prescriber": e.Coded("hosp", "1"),
            "holder": self.eken.feed if held else None,
            "bearer_keys": tuple(e.FillKey(f, bearer_public_key(SEEDS[f])) for f in bearer),
        }  # fmt: skip
        self.event = e.PrescriptionIssued(person=PERSON, **(stated | fields))  # type: ignore[arg-type]
        self.document = document_id(date.fromisoformat(self.event.issued), e.encode_event(self.event))
        self.issued = self.write(self.doctor, self.event, knowing=())

    def command(self) -> bytes:
        self.commands += 1
        return self.commands.to_bytes(16, "big")

    # --- writing ----------------------------------------------------------------------------------------------

    def write(
        self, author: Author, event: e.Event | None, knowing: Iterable[Link] | None = None, *,
        within: DocumentId | None = None, ms: int | None = None, salt: str = "", whole: bool = True, void: str = "",
        detached: bool = False,
    ) -> Link:  # fmt: skip
        """Append; `knowing` are its parents (default: the issuing event)."""
        data = e.encode_event(event) if event is not None else b"?"
        parents = tuple(sorted({self.issued} if knowing is None else set(knowing)))
        previous = author.path[-1].id if author.path else author.feed
        self.clock += 1
        made = hashlib.sha256(b"".join((previous, data, *parents, salt.encode()))).digest()
        fact = Fact(
            id=Link(made), feed=author.feed, branch=0, sequence=len(author.path) + 1,
            stamp=pack_stamp(NOW_MS + self.clock if ms is None else ms), document=within or self.document,
            author=author.node, role=author.role, parents=parents,
            kind=type(event).__name__ if event is not None else "Unheard", event=event, event_bytes=data,
            admitted_by=author.admitted_by, whole=whole, void=void, detached=detached,
        )  # fmt: skip
        author.path.append(fact)
        self.facts[fact.id] = fact
        return fact.id

    def act(
        self, author: Author, kind: type[T], knowing: Iterable[Link] | None = None, /, **fields: object
    ) -> Link:
        """Write an event; keyword arguments that `write` knows go there."""
        of_write = ("within", "ms", "salt", "whole", "detached")
        for_write = {name: fields.pop(name) for name in of_write if name in fields}
        filled = {"person": PERSON, "command": self.command(), **fields}
        return self.write(author, kind(**filled), knowing, **for_write)  # type: ignore[arg-type]

    def supply(
        self, author: Author, fill: int, rests_on: Link | None = None, knowing: Iterable[Link] | None = None, *,
        quantity: int = SIZE, basis: e.Basis | None = None, **fields: object,
    ) -> Link:  # fmt: skip
        """On custody of `rests_on`; an emergency without it."""
        if basis is None:
            basis = e.Basis.EMERGENCY if rests_on is None else e.Basis.CUSTODY
        if basis is e.Basis.BEARER and "bearer_signature" not in fields:
            fields["bearer_signature"] = sign_bearer(SEEDS[fill], self.document, fill, author.feed)
        stated = {"fill": fill, "quantity": quantity, "basis": basis, "rests_on": rests_on}
        return self.act(author, e.Dispensed, knowing, **stated, **fields)

    def transfer(
        self, author: Author, fill: int, rests_on: Link, to: Author | None, knowing: Iterable[Link] | None = None,
        **fields: object,
    ) -> Link:  # fmt: skip
        keys = () if to is not None else (e.FillKey(fill, bearer_public_key(SEEDS[fill])),)
        fields.setdefault("fills", (e.FillRight(fill, rests_on),))
        holder = None if to is None else to.feed
        return self.act(author, e.CustodyTransferred, knowing, to=holder, bearer_keys=keys, **fields)

    def reverse(self, author: Author, supply: Link, knowing: Iterable[Link] | None = None) -> Link:
        return self.act(
            author, e.DispensingReversed, knowing, supply=supply, kind=e.ReversalKind.BEFORE_HANDOVER
        )

    def delegate(self, author: Author, to: Author, knowing: Iterable[Link] = (), **fields: object) -> Link:
        return self.act(author, e.CustodyDelegated, knowing, within=PLACE, to=to.feed, **fields)

    def end(self, author: Author, delegation: Link, knowing: Iterable[Link] = (), **fields: object) -> Link:
        kind = e.CustodyDelegationEnded
        return self.act(author, kind, knowing, within=PLACE, delegation=delegation, **fields)

    def close(
        self, author: Author, successor: Author, knowing: Iterable[Link] = (), **fields: object
    ) -> Link:
        return self.act(author, e.FeedClosed, knowing, within=PLACE, successor=successor.feed, **fields)

    def recover(self, fill: int, knowing: Iterable[Link] | None = None) -> Link:
        return self.act(self.agency, e.CustodyRecovered, knowing, fills=(fill,), reason="brand")

    def chain(self, link: Link, *, detached: bool = False) -> None:
        """A detached fact takes its place in its feed (or the other way round)."""
        self.facts[link] = changed = replace(self.facts[link], detached=detached)
        for author in self.authors:
            author.path = [changed if f.id == link else f for f in author.path]

    # --- governance -------------------------------------------------------------------------------------------

    def govern(self, kind: type[e.Event], **fields: object) -> bytes:
        """An entry of the governance chain; returns its mark."""
        number = len(self.governing) + 1
        link = Link(digest(f"governance {number}"))
        event = kind(person=PERSON, command=self.command(), **fields)  # type: ignore[arg-type]
        self.governing.append(
            GovernanceEntry(
                id=link, feed=FeedId(digest("governance feed")[:16]), branch=0, sequence=number, stamp=number,
                author=self.agency.node, role=NodeRole.AGENCY, kind=kind.__name__, event=event,
            )
        )  # fmt: skip
        return bytes(link[:8])

    def revoke(self, node: Author, *good: Fact) -> bytes:
        """Nothing of the node is good but up to the facts named."""
        ends = tuple(e.FeedEnd(f.feed, f.sequence, f.id) for f in good)
        return self.govern(e.NodeRevoked, node=node.node, reason="stulen", good=ends)

    def governance(self) -> GovernanceView:
        return fold_governance(self.governing, {})

    # --- reading ----------------------------------------------------------------------------------------------

    def placed(self, seed: int, held: Iterable[Link] | None = None) -> tuple[list[Fact], Branches]:
        """Facts in some order of arrival, with the branch labels that a node gives in that order."""
        rng = random.Random(seed)
        every = list(self.facts.values())
        rng.shuffle(every)
        paths: dict[FeedId, list[list[Fact]]] = {}
        for author in self.authors:
            if author.path:
                paths.setdefault(author.feed, []).append(author.path)
        seen: set[Link] = set()
        parts: dict[FeedId, list[Part]] = {}
        branch_of: dict[Link, int] = {}
        for feed, every_chain in paths.items():
            # What is the beginning of another chain is no branch of its own.
            begun = {fact.id for chain in every_chain for fact in chain[:-1]}
            chains = [chain for chain in every_chain if chain[-1].id not in begun]
            rng.shuffle(chains)
            for own, chain in enumerate(chains):
                parent, since = 0, 0
                for fact in chain:
                    if fact.id in seen:
                        parent, since = branch_of[fact.id], fact.sequence
                    else:
                        seen.add(fact.id)
                        branch_of[fact.id] = own
                if own and branch_of[chain[-1].id] == own:
                    parts.setdefault(feed, []).append(Part(own, parent, since + 1))
        only = set(self.facts) if held is None else set(held)
        return [replace(f, branch=branch_of[f.id]) for f in every if f.id in only], Branches(parts)

    def fold(self, seed: int = 0, held: Iterable[Link] | None = None) -> Prescription:
        """The state, from facts that came in some order."""
        placed, branches = self.placed(seed, held)
        own = [f for f in placed if f.document == self.document]
        district = [f for f in placed if f.document == PLACE]
        return fold(self.document, own, district, branches, self.governance())

    def fill(self, number: int) -> FillState:
        return self.fold().fills[number - 1]

    def kinds(self) -> set[str]:
        """Kinds of anomaly."""
        return {a.kind for a in self.fold().anomalies}

    def blamed(self, kind: str = "custody_breach") -> set[Link]:
        """Events that anomalies of a kind name."""
        return {link for a in self.fold().anomalies if a.kind == kind for link in a.involved}

    def standing(self, supply: Link) -> str:
        """How a supply's custody is judged."""
        found = next(s for s in self.fold().supplies if supply in s.ids)
        return "" if found.standing is None else found.standing.value
