"""Second chapter of the demonstration on real servers: cables and servers go, islands work, a computer dies, a relay carries."""

from __future__ import annotations

import threading
import time

from ledger import Basis, Origin, Supply, Verdict
from ledger.errors import RxLedgerError
from ledger.ids import Link
from nodes.demo_nats_before import DOSES
from nodes.demo_nats_processes import until
from nodes.demo_nats_tale import WAIT_SECONDS, Tale, emergency, milliseconds
from nodes.demo_nats_world import AGENCY, ASPEN, EKEN, LINDEN, NATIONAL, NORTH, RELAY, SODER, NatsSite

__all__ = ["outage"]

UNREACHABLE_SECONDS = 2.0
"""How long a claim is waited for whose holder is in another island."""
ACKNOWLEDGED = 3
"""Dispensings acknowledged before the computer dies in the midst of the next."""


def outage(tale: Tale) -> None:
    """Cut, work in the islands, kill, carry."""
    _cut(tale)
    _north(tale)
    _south(tale)
    _killed(tale)


def _cut(tale: Tale) -> None:
    story, world = tale.story, tale.world
    story.chapter("The links go, without warning")
    world.cable.cut()
    took = until(lambda: world.leaves() == {NORTH}, "the southern hub is cut off", WAIT_SECONDS)
    story.tell(
        "southern hub",
        "loses its cable to the national server",
        f"cut off after {milliseconds(1000 * took)}",
        good=False,
    )
    # The place where both stand has lost its power.
    world.servers[NATIONAL].kill()
    world[AGENCY].kill()
    story.tell(
        "national",
        "message server and the agency's node are killed (kill -9)",
        "two islands: north and south",
        good=False,
    )


def _north(tale: Tale) -> None:
    story, world = tale.story, tale.world
    soder, eken = world[SODER], world[EKEN]
    story.chapter("Inside the islands")
    receipt = tale.prescribe(soder, "acute", tale.order("J01CE02", chosen_pharmacy=eken.node, fills=1))
    took = tale.seen_after_ms(eken, receipt)
    tale.dispense(eken, "acute", Supply(fill=1))
    story.tell(
        EKEN, f"dispenses what {SODER} has just prescribed in the same island",
        f"permitted on custody; it came in {milliseconds(took)}", milliseconds=round(took, 2),
    )  # fmt: skip
    tale.dispense(eken, "ordinary", Supply(fill=1))
    story.tell(EKEN, "dispenses a prescription from before", "permitted on custody")


def _south(tale: Tale) -> None:
    story, world = tale.story, tale.world
    linden, aspen, eken = world[LINDEN], world[ASPEN], world[EKEN]
    told = tale.claim(linden, "insulin", [1], wait_s=UNREACHABLE_SECONDS)
    story.check(told.code == "unreachable", f"the holder cannot be reached ({told.code})")
    words = tale.assess(linden, "insulin", emergency(), Verdict.PERMIT_WITH_RISK)
    tale.dispense(linden, "insulin", emergency())
    story.tell(
        LINDEN,
        f"claims insulin that {EKEN} holds",
        f"{told.code} within {UNREACHABLE_SECONDS:.0f} s",
        good=False,
    )
    story.tell(LINDEN, "supplies it all the same: the patient has none", words, good=False)
    tale.dispense(eken, "insulin", Supply(fill=1))
    story.tell(
        EKEN, "dispenses the same fill on its custody", "permitted: nothing here tells of the other supply"
    )
    story.tell(
        LINDEN, "emergency supply of a controlled substance",
        f"refused: {tale.refused(linden, 'controlled', emergency())}",
    )  # fmt: skip
    story.tell(
        LINDEN, "emergency supply of an ordinary medicine",
        f"refused: {tale.refused(linden, 'ordinary', emergency(2))}",
    )  # fmt: skip
    custody = Supply(fill=2, basis=Basis.CUSTODY)
    story.tell(LINDEN, "asks for it on custody", f"refused: {tale.refused(linden, 'ordinary', custody)}")
    order = tale.order("N02BE01", origin=Origin.TELEPHONE, fills=1)
    tale.prescribe(aspen, "telephone", order)
    tale.dispense(aspen, "telephone", Supply(fill=1))
    story.tell(
        ASPEN,
        "registers a prescription by telephone and dispenses it",
        "permitted on custody, in its district",
    )


def _killed(tale: Tale) -> None:
    story, world = tale.story, tale.world
    soder, eken, relay = world[SODER], world[EKEN], world[RELAY]
    story.chapter("A computer dies; a relay carries")
    acknowledged, interrupted = _dispensed_until_killed(tale)
    story.tell(
        EKEN, f"is killed (kill -9) while it dispenses, {len(acknowledged)} acknowledged", f"then: {interrupted[1]}",
        good=False,
    )  # fmt: skip
    receipt = tale.prescribe(soder, "night", tale.order("B01AF02", chosen_pharmacy=eken.node, fills=1))
    took = tale.seen_after_ms(relay, receipt)
    unread = relay.ledger.show(receipt.document)
    story.check(unread.prescription.issued is None, "the relay reads nothing")
    soder.stop()
    story.tell(
        SODER, f"prescribes for {EKEN}, which is down, and closes for the night",
        f"the relay keeps it, sealed, after {milliseconds(took)}; it has no key",
    )  # fmt: skip
    began = time.perf_counter()
    eken.start()
    eken.attach(world.unlock, link=False)
    story.check(all(eken.holds(link) for link in acknowledged), "all that was acknowledged is there")
    fill, _, command = interrupted
    again = tale.dispense(eken, "doses", Supply(fill=fill), command)
    supplies = eken.ledger.show(tale.documents["doses"]).prescription.supplies
    counted = sum(supply.fill == fill for supply in supplies)
    story.check(counted == 1, f"the repeated command has one effect, not {counted}")
    story.tell(
        EKEN, "is started again", f"all {len(acknowledged)} acknowledged are there; the one that broke off, repeated: "
        + ("it had been carried out" if again.repeated else "carried out now") + ", once",
    )  # fmt: skip
    until(lambda: eken.holds(receipt.link), "the relay hands on what it keeps", WAIT_SECONDS)
    # Counted when the round with it is over.
    until(lambda: _came_from(eken, relay) > 0, "it came from the relay", WAIT_SECONDS)
    tale.dispense(eken, "night", Supply(fill=1))
    story.tell(
        EKEN, f"gets what {SODER} wrote, though the two were never up at once",
        f"from the relay, {time.perf_counter() - began:.1f} s after its start; dispensed on custody",
        entries=_came_from(eken, relay),
    )  # fmt: skip


def _came_from(site: NatsSite, other: NatsSite) -> int:
    """Entries that a node got from another in rounds, since it was started."""
    peer = site.peer(other)
    return 0 if peer is None else peer.entries_in


def _dispensed_until_killed(tale: Tale) -> tuple[list[Link], tuple[int, str, bytes]]:
    """Dispense fill after fill, and kill the daemon in the midst; what was acknowledged, and what broke off how."""
    eken = tale.world[EKEN]
    commands = {fill: eken.ledger.node.new_command() for fill in range(4, DOSES + 1)}
    acknowledged: list[Link] = []
    broken: list[tuple[int, str, bytes]] = []
    enough = threading.Event()

    def counter() -> None:
        for fill, command in commands.items():
            try:
                acknowledged.append(tale.dispense(eken, "doses", Supply(fill=fill), command).link)
            except RxLedgerError as error:
                broken.append((fill, f"{error.code} for fill {fill}", command))
                return
            if len(acknowledged) == ACKNOWLEDGED:
                enough.set()

    thread = threading.Thread(target=counter, name="counter", daemon=True)
    thread.start()
    came = enough.wait(WAIT_SECONDS)
    eken.daemon.kill()
    thread.join(WAIT_SECONDS)
    eken.detach()
    tale.story.check(came and len(broken) == 1, "the kill comes in the midst of the work")
    return acknowledged, broken[0]
