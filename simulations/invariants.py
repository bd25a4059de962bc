"""What must hold at the end of a run, judged by the record of what was acknowledged and by nodes against each other."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ledger import Ledger
from ledger.errors import RxLedgerError
from ledger.feed import check_fork_proof
from ledger.ids import GOVERNANCE, DocumentId, FeedId
from simulations.machines import Machine, template
from simulations.replica import check_replayed
from simulations.world import Acknowledged, Finding, World

__all__ = ["check_core", "in_step"]

OVER = {"double_dispensing", "over_quantity"}


def in_step(core: Sequence[Machine]) -> bool:
    """All machines of the core hold the same of every district that they share."""
    digests: dict[str, set[bytes]] = {}
    for machine in core:
        assert machine.ledger is not None
        exchange = machine.ledger.exchange
        for district in exchange.districts():
            digests.setdefault(district, set()).add(exchange.district_digest(district))
    return all(len(found) == 1 for found in digests.values())


def check_core(world: World, core: Sequence[Machine]) -> None:
    """Check everything.

    Raises:
        Finding: the first that does not hold.
    """
    held: dict[str, set[bytes]] = {}
    by_district: dict[str, dict[str, set[bytes]]] = {}
    for machine in core:
        ledger = _ledger(machine)
        try:
            ledger.inquiry.index_arrivals()
            of = by_district[machine.name] = _entries(machine)
            held[machine.name] = {link for links in of.values() for link in links}
        except RxLedgerError as error:
            if not machine.damaged:
                raise Finding(f"A12: the store of {machine.name} does not verify: {error.code}") from error
            held[machine.name] = set()
    _same_entries(by_district)
    _forks_proven(world, core)
    _nothing_invented(world, held)
    _nothing_after_revocation(world, core)
    _nothing_lost(world, core, held)
    _same_states(world, core)
    for machine in core:
        _balanced(world, machine, held[machine.name])
    _replayed(world, core)
    world.note(b"".join(sorted(_ledger(m).inquiry.frontier_digest() for m in core)))


def _ledger(machine: Machine) -> Ledger:
    assert machine.ledger is not None
    return machine.ledger


def _entries(machine: Machine) -> dict[str, set[bytes]]:
    """District → link of every entry held, checked one by one; A5 and A10 on the way."""
    node = _ledger(machine).node
    found: dict[str, set[bytes]] = {}
    last: tuple[bytes, int] = (b"", 0)
    stamp = 0
    with node.lock:
        districts = {row.feed: row.district for row in node.store.feeds()}
        for stored in node.store.verify():
            found.setdefault(districts[stored.feed], set()).add(stored.link)
            if (stored.feed, stored.branch) == last and stored.stamp <= stamp:
                raise Finding(f"A10: time stands still in a feed that {machine.name} holds")
            last, stamp = (stored.feed, stored.branch), stored.stamp
    return found


def _same_entries(by_district: dict[str, dict[str, set[bytes]]]) -> None:
    """E1, by the entries themselves: digests of the code under test said that it holds."""
    seen: dict[str, tuple[str, set[bytes]]] = {}
    for name, districts in by_district.items():
        for district, links in districts.items():
            first, other = seen.setdefault(district, (name, links))
            if other != links:
                raise Finding(
                    f"E1: {first} and {name} say that they hold the same of {district}, and lack {len(other ^ links)} entries"
                )


def _forks_proven(world: World, core: Sequence[Machine]) -> None:
    """A8: all that hold the same know of the same forks, each with a proof that a third party can check."""
    seen: dict[str, tuple[str, dict[FeedId, int]]] = {}
    for machine in core:
        if machine.damaged:
            continue
        ledger = _ledger(machine)
        proofs = {FeedId(proof.left.feed): proof for proof in ledger.exchange.fork_proofs()}
        for district in sorted(ledger.exchange.districts()):
            with ledger.node.lock:
                forks = ledger.node.store.forks(district)
            first, other = seen.setdefault(district, (machine.name, forks))
            if other != forks:
                raise Finding(
                    f"A8: {first} and {machine.name} hold the same of {district} and see other forks"
                )
            for feed in forks:
                if feed not in proofs:
                    raise Finding(f"A8: {machine.name} knows of a fork and has no proof of it")
                certified, _ = ledger.node.reader.author(feed)
                check_fork_proof(ledger.node.realm.id, proofs[feed], certified.public_key)
                world.hits["A8 fork proven"] += 1


def _nothing_after_revocation(world: World, core: Sequence[Machine]) -> None:
    """A11: whoever agrees on the entries agrees on who is revoked, and the agency's word reached all."""
    for machine in core:
        view = _ledger(machine).node.reader.governance()
        for kind in world.revoked:
            told = {"agency"} & {m.name for m in core}
            if told and not machine.damaged and view.revocation(template().nodes[kind]) is None:
                agency = world.machines["agency"]
                if not (agency.rolled_back or agency.damaged):
                    raise Finding(f"A11: {machine.name} does not know that {kind} is revoked")


def _replayed(world: World, core: Sequence[Machine]) -> None:
    """A6, A7: one of them, all over again in another order."""
    random = Random(f"replay {world.plan.seed}")
    able = [m for m in core if not m.damaged]
    if able:
        world.hits["A6 replayed in another order"] += check_replayed(random.choice(able), world.home, random)


def _nothing_invented(world: World, held: dict[str, set[bytes]]) -> None:
    """A2: what is held was written by somebody."""
    for name, links in held.items():
        if strange := links - world.attempted - template().known:
            raise Finding(f"A2: {name} holds {len(strange)} entries that nobody wrote")


def _nothing_lost(world: World, core: Sequence[Machine], held: dict[str, set[bytes]]) -> None:
    """A1: what was acknowledged is where it was written, and, once they converged, everywhere in the core."""
    by_name = {machine.name: machine for machine in core}
    for done in world.acknowledged:
        machine = by_name.get(done.machine)
        if machine is None or machine.rolled_back or machine.damaged:
            continue
        if done.link not in held[machine.name]:
            raise Finding(f"A1: {done.act} acknowledged at {done.machine} is lost")


def _same_states(world: World, core: Sequence[Machine]) -> None:
    """A7: the same entries and keys give the same states, also folded from nothing."""
    # Where somebody acted on a prescription of another district, those who hold both see it in its home, others do not.
    strays = any(
        world.homes.get(a.document, "") != world.machines[a.machine].district
        for a in world.acknowledged
        if a.machine in world.machines and world.machines[a.machine].district
    )
    for district in sorted({d for m in core for d in _ledger(m).node.keyring.districts()}):
        seen: dict[tuple[object, ...], tuple[str, bytes]] = {}
        for machine in core:
            ledger = _ledger(machine)
            keyring = ledger.node.keyring
            epochs = tuple(epoch for epoch, _ in keyring.epochs(district))
            if not epochs or machine.damaged:
                continue
            digest = ledger.inquiry.state_digest([district])
            held = tuple(sorted(ledger.exchange.districts())) if strays else ()
            # Keys of single documents and entries that were lent count too: who was lent others sees others.
            lent = tuple(sorted(keyring._documents)), tuple(sorted(keyring._entries))
            name, other = seen.setdefault((held, epochs, lent), (machine.name, digest))
            if other != digest:
                raise Finding(
                    f"A7: {name} and {machine.name} hold the same of {district} and see it differently"
                )
            world.note(digest)
    machine = core[0]
    if not machine.damaged:
        try:
            for _ in _ledger(machine).inquiry.rebuild():
                pass
        except RxLedgerError as error:
            raise Finding(
                f"A7: what {machine.name} remembers is not what its entries say: {error.message}"
            ) from error


def _balanced(world: World, machine: Machine, held: set[bytes]) -> None:
    """A9, R7, R9: each prescription balances, with the supplies that were acknowledged; over-supply is found."""
    if machine.damaged:
        return
    supplied: dict[DocumentId, list[Acknowledged]] = {}
    changed = {a.document for a in world.acknowledged if a.act in ("reverse", "correct", "repeat")}
    for done in world.acknowledged:
        if done.quantity and done.link in held:
            supplied.setdefault(done.document, []).append(done)
    for document, state in _ledger(machine).inquiry.states():
        prescription, balance = state.prescription, state.prescription.balance
        if balance.authorised != balance.dispensed + balance.remaining + balance.forfeited:
            raise Finding(f"A9: a prescription does not balance at {machine.name}")
        kinds = {anomaly.kind for anomaly in prescription.anomalies}
        world.hits.update(f"found: {kind}" for kind in kinds)
        if balance.over_supply and not OVER & kinds:
            raise Finding(f"R9: over-supply is not named at {machine.name}")
        honest = not any(m.rolled_back for m in world.machines.values()) and not world.revoked
        honest = honest and document not in world.lawless
        if honest and "custody_breach" in kinds:
            raise Finding(f"R7: honest nodes are said to have breached custody, at {machine.name}")
        mine = supplied.get(document, [])
        if honest and not world.recovered and balance.over_supply and all(a.custody for a in mine) and mine:
            raise Finding(f"R7: dispensing on custody alone over-supplied, at {machine.name}")
        if prescription.issued is not None and document not in changed and not state.unread:
            total = sum(a.quantity for a in mine)
            known = balance.dispensed + balance.over_supply
            if honest and known < total:
                raise Finding(
                    f"R9: {total - known} units that were supplied are counted nowhere, at {machine.name}"
                )
    if GOVERNANCE not in _ledger(machine).exchange.districts():
        raise Finding(f"{machine.name} holds no governance")
