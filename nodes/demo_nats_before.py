"""First chapter of the demonstration on real servers: everything is up, and an ordinary day passes."""

from __future__ import annotations

import time
from statistics import median

from ledger import Supply
from nodes.demo_nats_tale import Tale, milliseconds
from nodes.demo_nats_world import EKEN, LINDEN, SODER

__all__ = ["DOSES", "before"]

DOSES = 12
"""Fills of the prescription that is dispensed one after the other when the pharmacy's computer dies."""


def before(tale: Tale, started: float) -> None:
    """Start everything, prescribe, claim and dispense.

    Args:
        tale: what has been told so far.
        started: when the command began, on `time.perf_counter`.
    """
    story, world = tale.story, tale.world
    story.chapter("Before: servers, daemons, an ordinary day")
    world.start_servers()
    story.tell("national", "message server runs, two regional hubs are its leaf nodes", "TLS, one key a node")
    world.start_daemons()
    tale.converge("all nodes hold the same")
    story.tell(
        "all nodes", f"{len(world.sites)} daemons are linked and hold the same",
        f"{time.perf_counter() - started:.1f} s after the command, realm and keys included",
        nodes=len(world.sites), seconds=round(time.perf_counter() - started, 2),
    )  # fmt: skip
    _prescribe(tale)
    _claim(tale)


def _prescribe(tale: Tale) -> None:
    story, world = tale.story, tale.world
    soder, eken, linden = world[SODER], world[EKEN], world[LINDEN]
    near: list[float] = []
    far: list[float] = []
    for label, wanted, fills in (
        ("ordinary", "ordinary", 3), ("insulin", "life-sustaining", 3), ("controlled", "controlled", 2),
        ("doses", "ordinary", DOSES), ("evacuated", "life-sustaining", 3),
    ):  # fmt: skip
        order = tale.order(wanted, chosen_pharmacy=eken.node, fills=fills)
        receipt = tale.prescribe(soder, label, order)
        near.append(tale.seen_after_ms(eken, receipt))
        story.tell(
            SODER, f"prescribes {order.product.name}", f"held by {EKEN}, there after {milliseconds(near[-1])}",
            prescription=receipt.document, milliseconds=round(near[-1], 2),
        )  # fmt: skip
    for fill in (1, 2, 3):
        receipt = tale.dispense(eken, "doses", Supply(fill=fill))
        far.append(tale.seen_after_ms(linden, receipt))
    story.tell(
        EKEN, "dispenses thrice, permitted on custody",
        f"each is at {LINDEN}, two hubs and the national server away, after {milliseconds(median(far))}",
        milliseconds=[round(ms, 2) for ms in far],
    )  # fmt: skip


def _claim(tale: Tale) -> None:
    story, world = tale.story, tale.world
    soder, eken, linden = world[SODER], world[EKEN], world[LINDEN]
    receipt = tale.prescribe(soder, "unchosen", tale.order("ordinary", fills=2))
    for site in (eken, linden):
        tale.seen_after_ms(site, receipt)
    began = time.perf_counter()
    told = tale.claim(eken, "unchosen", [1, 2])
    took = 1000 * (time.perf_counter() - began)
    story.check(not told.code, f"the claim is granted ({told.code})")
    story.tell(
        EKEN, f"claims the fills of a patient at the counter from {SODER}",
        f"granted: custody is here after {milliseconds(took)}", transfer=told.link, milliseconds=round(took, 2),
    )  # fmt: skip
    second = tale.claim(linden, "unchosen", [1], holder=soder)
    story.check(bool(second.code) and second.holder == eken.node, "a second claimant is told who holds it")
    peer = linden.peer(eken)
    way = f"heard over its link {peer.link!r}" if peer is not None and peer.link else "not heard"
    story.tell(
        LINDEN, f"claims the same from {SODER}",
        f"refused ({second.code}); told that {world.name_of(second.holder)} holds it, {way}", code=second.code,
        holder=second.holder,
    )  # fmt: skip
    receipt = tale.dispense(eken, "unchosen", Supply(fill=1))
    story.tell(EKEN, "dispenses fill 1", "permitted on the custody claimed", event=receipt.link)
