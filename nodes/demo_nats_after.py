"""Third chapter of the demonstration on real servers: the links are back, all converge, a patient moves, a thief is shut out."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from msgspec import Struct

from ledger import Origin, Supply, Verdict
from ledger.ids import GOVERNANCE
from nodes.daemon.service import FETCH_METHOD
from nodes.daemon.status import status_lines
from nodes.demo_nats_before import EVACUATED
from nodes.demo_nats_processes import Overdue, until
from nodes.demo_nats_tale import WAIT_SECONDS, Tale, milliseconds
from nodes.demo_nats_world import (
    AGENCY,
    ASPEN,
    EKEN,
    LINDEN,
    NATIONAL,
    NORTH,
    RELAY,
    SODER,
    SOUTH,
    STOCKHOLM,
    UPPSALA,
    NatsSite,
)
from nodes.nats.control import apply_folders
from nodes.nats.folders import find_folders, write_users
from nodes.nats.roster import read_roster
from nodes.requests import Told

__all__ = ["after"]

WAVE_SECONDS = 1.5
"""Between two things that happen at one place on a quiet day."""
WAVES_MAX = 20
"""Of work, until all hold the same; then it is waited for."""
THIEF_SECONDS = 2.0
"""How long a thief waits for an answer that nobody gives."""


class _Moved(Struct, frozen=True):
    """What all daemons together have moved, by their own word."""

    entries: int
    bytes: int


def after(tale: Tale) -> None:
    """Heal, converge, compare; fetch; revoke; show a status."""
    _healed(tale)
    _same(tale)
    _found(tale)
    _evacuated(tale)
    _stolen(tale)
    _status(tale)


def _moved(tale: Tale) -> _Moved:
    statuses = [site.status() for site in tale.world.sites.values() if site.daemon.running]
    return _Moved(
        sum(peer.entries_in for status in statuses for peer in status.peers),
        sum(link.sent_bytes for status in statuses for link in status.links),
    )


# --- healing ------------------------------------------------------------------------------------------------------------


def _healed(tale: Tale) -> None:
    story, world = tale.story, tale.world
    story.chapter("The links are back")
    world[SODER].start()
    world[SODER].attach(world.unlock)
    story.check(
        len({site.entries([STOCKHOLM]) for site in (world[SODER], world[LINDEN])}) == 2, "the islands differ"
    )
    begun = _moved(tale)
    started = time.perf_counter()
    world.start_server(NATIONAL)
    world.cable.mend()
    until(lambda: world.leaves() == {NORTH, SOUTH}, "the hubs are back", WAIT_SECONDS)
    hubs = time.perf_counter() - started
    world[AGENCY].start()
    world[AGENCY].attach(world.unlock)
    linked = time.perf_counter() - started
    story.tell(
        "national", "message server starts anew and empty, the agency's node too; the cable is mended",
        f"the hubs are back after {hubs:.1f} s, the agency after {linked:.1f} s", seconds=round(linked, 2),
    )  # fmt: skip
    waves = _go_on(tale)
    seconds = time.perf_counter() - started
    ended = _moved(tale)
    entries, sent = ended.entries - begun.entries, ended.bytes - begun.bytes
    story.tell(
        "all nodes", f"go on working ({waves} new things at each end)",
        f"all hold the same {seconds:.1f} s after the repair: {entries} entries came in, {sent} bytes were sent in all",
        seconds=round(seconds, 2), entries=entries, bytes=sent,
    )  # fmt: skip


def _go_on(tale: Tale) -> int:
    """Work as on any day until all hold the same; returns how often each island wrote something.

    Whoever hears of something new and lacks what came before it asks for that, and need not wait for a sign of life.
    """
    world = tale.world
    for wave in range(1, WAVES_MAX + 1):
        order = tale.order("A10BA02", chosen_pharmacy=world[EKEN].node, fills=1)
        tale.prescribe(world[SODER], f"again {wave}", order)
        for site in (world[LINDEN], world[ASPEN]):
            tale.prescribe(
                site, f"telephone {wave} {site.name}", tale.order("N02BE01", origin=Origin.TELEPHONE, fills=1)
            )
        if wave == WAVES_MAX:
            tale.converge("all nodes hold the same again")
        else:
            with suppress(Overdue):
                until(tale.is_converged, "", WAVE_SECONDS)
                break
    return wave


def _same(tale: Tale) -> None:
    story = tale.story
    rows = []
    for district in (STOCKHOLM, UPPSALA):
        entries = {
            site.name: site.entries([GOVERNANCE, district]).hex()[:16] for site in tale.readers(district)
        }
        states = {
            site.name: site.ledger.inquiry.state_digest([GOVERNANCE, district]).hex()[:16]
            for site in tale.readers(district)
            if site.name != RELAY
        }
        story.check(len(set(entries.values())) == 1, f"the entry sets of {district} are equal")
        story.check(len(set(states.values())) == 1, f"the states of {district} are equal")
        rows += [(district, name, entries[name], states.get(name, "(has no key)")) for name in entries]
    story.output.table("Digests: equal within each district", ("district", "node", "entries", "states"), rows)
    story.steps.append({"digests": rows})


def _found(tale: Tale) -> None:
    story, world = tale.story, tale.world
    labels = {document: label for label, document in tale.documents.items()}
    names = [SODER, EKEN, LINDEN, AGENCY]
    found = {
        name: sorted(
            (labels.get(a.document, a.document.hex()[:12]), a.kind, a.detail)
            for a in world[name].ledger.anomalies()
        )
        for name in names
    }
    story.check(
        all(one == found[AGENCY] for one in found.values()), "the anomalies are the same on every node"
    )
    story.check(
        ("insulin", "double_dispensing") in {(a, b) for a, b, _ in found[AGENCY]},
        "the double supply is found",
    )
    story.output.table(
        f"Anomalies: the same on all {len(names)} nodes that read {STOCKHOLM}",
        ("prescription", "kind", "detail"), found[AGENCY],
    )  # fmt: skip
    story.steps.append({"anomalies": found[AGENCY]})


# --- a patient in another district ----------------------------------------------------------------------------------------


def _evacuated(tale: Tale) -> None:
    story, world = tale.story, tale.world
    story.chapter("An evacuated patient")
    aspen, agency, eken = world[ASPEN], world[AGENCY], world[EKEN]
    document = tale.documents["evacuated"]
    logged = _lookups(agency)
    began = time.perf_counter()
    told = aspen.ledger.ask(
        FETCH_METHOD, Told, holder=agency.node, person=aspen.person, purpose="evakuerad patient vid disken",
        patient=EVACUATED, request=aspen.ledger.node.new_command(), wait_ms=int(WAIT_SECONDS * 1000),
    )  # fmt: skip
    took = 1000 * (time.perf_counter() - began)
    story.check(
        not told.code and document in told.documents, f"the patient's prescriptions are fetched ({told.code})"
    )
    looked = _lookups(agency) - logged
    story.check(looked == 1, "the lookup is logged where the keys were lent")
    issued = aspen.ledger.show(document).prescription.issued
    story.check(issued is not None, "the prescription is opened")
    story.tell(
        ASPEN, f"asks for the prescriptions of a patient from {STOCKHOLM}",
        f"{len(told.documents)} came after {milliseconds(took)}, their keys wrapped for it; {looked} lookup logged at the "
        f"agency; {issued.product.name if issued else '?'} opened",
        documents=list(told.documents), milliseconds=round(took, 2),
    )  # fmt: skip
    claimed = tale.claim(aspen, "evacuated", [1], holder=eken)
    story.check(not claimed.code, f"the fill is passed on ({claimed.code})")
    decision = aspen.ledger.assess(document, Supply(fill=1))
    story.check(decision.verdict is Verdict.PERMIT, f"the guard permits: {tale.words(decision)}")
    receipt = tale.dispense(aspen, "evacuated", Supply(fill=1))
    back = tale.seen_after_ms(eken, receipt)
    story.tell(
        ASPEN, f"claims fill 1 from {EKEN} and dispenses it", f"permitted on custody; known there {milliseconds(back)} later",
        event=receipt.link,
    )  # fmt: skip


def _lookups(site: NatsSite) -> int:
    """Records in a node's audit log."""
    return sum(1 for _ in site.ledger.node.store.audit())


# --- a stolen computer ----------------------------------------------------------------------------------------------------


def _stolen(tale: Tale) -> None:
    story, world = tale.story, tale.world
    story.chapter("A stolen computer")
    agency, linden, eken, soder = world[AGENCY], world[LINDEN], world[EKEN], world[SODER]
    receipt = agency.ledger.stewardship.revoke(linden.node, person=agency.person, reason="stulen dator")
    honest = [site for site in world.sites.values() if site is not linden]
    took = 1000 * until(
        lambda: all(site.holds(receipt.link) for site in honest), "all know of the revocation", WAIT_SECONDS
    )
    story.tell("Agency", f"revokes {LINDEN}", f"known to all {len(honest)} others {milliseconds(took)} later")
    before = eken.status().refusals.get("revoked", 0)
    told = tale.claim(linden, "ordinary", [3], holder=eken, wait_s=THIEF_SECONDS)
    refused = eken.status().refusals.get("revoked", 0) - before
    story.check(
        told.code == "unreachable" and refused > 0, f"the thief is not listened to ({told.code}, {refused})"
    )
    story.tell(
        LINDEN, f"in the hands of a thief, claims a fill of {EKEN}",
        f"{told.code}: {EKEN} gives no answer; letters refused as of one revoked: {refused}", refusals=refused,
    )  # fmt: skip
    connected = world.connections(SOUTH)
    kicked = _shut_out(tale)
    until(
        lambda: "does not admit" in linden.status().links[0].reason, "the thief knocks in vain", WAIT_SECONDS
    )
    link = linden.status().links[0]
    until(lambda: world.connections(SOUTH) == connected - 1, "nobody else is off the hub", WAIT_SECONDS)
    story.tell(
        "operator", "lets every server read who may log in (rxledger nats users)",
        f"{LINDEN} is off its hub: {link.reason}", kicked=kicked, reason=link.reason,
    )  # fmt: skip
    stolen = linden.ledger.prescribe(
        tale.order("N02BE01", origin=Origin.TELEPHONE, fills=1), person=linden.person
    )
    later = tale.prescribe(soder, "later", tale.order("A10BA02", chosen_pharmacy=eken.node, fills=1))
    for site in (eken, agency):
        tale.seen_after_ms(site, later)
    story.check(
        not any(site.holds(stolen.link) for site in honest), "what the thief writes is heard by nobody"
    )
    story.check(not linden.holds(later.link), "the thief hears of nothing")
    story.tell("all others", "go on", f"what {LINDEN} writes is with nobody, what they write is not there")


def _shut_out(tale: Tale) -> int:
    """What `rxledger nats users` does; returns connections that had to be ended one by one."""
    world = tale.world
    ledger = world[AGENCY].ledger
    roster = read_roster(ledger, ledger.node.now_ms())
    folders = find_folders(world.folders)
    for folder in folders:
        write_users(folder, roster, ledger.node.realm)
    applied = asyncio.run(apply_folders(folders, ledger.node.realm))
    tale.story.check(all(one.done for one in applied), "; ".join(one.reason for one in applied if one.reason))
    linden = world[LINDEN]
    until(lambda: not linden.is_linked(), f"{LINDEN} is off its hub", WAIT_SECONDS)
    return sum(one.kicked for one in applied)


def _status(tale: Tale) -> None:
    story, world = tale.story, tale.world
    story.chapter("rxledger status")
    status = world[EKEN].status()
    tale.show(status_lines(status))
    story.steps.append({"status": status})
