"""First chapter of the demonstration on real servers: everything is up, and an ordinary day passes."""

from __future__ import annotations

import time
from statistics import median

from ledger import Supply
from nodes.content import PATIENTS
from nodes.demo_nats_tale import Tale, milliseconds
from nodes.demo_nats_world import EKEN, LINDEN, SODER

__all__ = ["DOSES", "EVACUATED", "before"]

DOSES = 12
"""Fills of the prescription that is dispensed one after the other when the pharmacy's computer dies."""
EVACUATED = PATIENTS[1]
"""Who will stand in a pharmacy of the other district."""


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
    for label, atc, fills, changes in (
        ("ordinary", "C07AB02", 3, {}), ("insulin", "A10AE04", 3, {}), ("controlled", "N02AA05", 2, {}),
        ("doses", "C10AA05", DOSES, {}), ("evacuated", "N03AX14", 3, {"patient": EVACUATED}),
    ):  # fmt: skip
        order = tale.order(atc, chosen_pharmacy=eken.node, fills=fills, **changes)
        receipt = tale.prescribe(soder, label, order)
        took = tale.seen_after_ms(eken, receipt)
        story.tell(
            SODER, f"prescribes {order.product.name}", f"in custody of {EKEN}, there {milliseconds(took)} later",
            prescription=receipt.document, milliseconds=round(took, 2),
        )  # fmt: skip
    far: list[float] = []
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
    receipt = tale.prescribe(soder, "unchosen", tale.order("A10BA02", fills=2))
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
