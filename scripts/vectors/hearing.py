"""Gives frames to a node as its server would, and tells what it did: refused, answered, took in, believed to be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from ledger import Coded, Ledger, Person, PersonRole
from nodes.acquaintances import PeeringSettings
from nodes.envelope import Postbox
from nodes.lines import LinkSettings
from nodes.messages import decode_message
from nodes.peering import Peering
from nodes.wire import Kind, decode_speech

__all__ = ["hear"]

_LINK = "link"


class _AsLateAsCanBe(Random):
    """What is done within some time is done at its end: in the one moment of a vector the node begins nothing itself."""

    def randint(self, a: int, b: int) -> int:
        """The latest."""
        return b


def hear(
    ledger: Ledger,
    introductions: Iterable[bytes],
    frames: Iterable[tuple[str, bytes]],
    boxes: Mapping[str, Postbox],
) -> tuple[str, dict[str, Any]]:
    """The first code of a refusal ("" if none), and what came of the frames.

    Args:
        ledger: of the node that hears.
        introductions: of the nodes that it knows already.
        frames: subject and payload of each, in order, in one moment.
        boxes: by mailbox, what opens the letters to it.
    """
    now_ms = ledger.node.now_ms()
    person = Person(Coded("urn:rxledger:vector", "reader"), PersonRole.OPERATOR)
    peering = Peering(
        ledger, [LinkSettings(name=_LINK)], PeeringSettings(), person=person, random=_AsLateAsCanBe(0)
    )
    peering.link_up(_LINK, now_ms)
    for introduction in introductions:
        peering.received(_LINK, "", bytes([Kind.INTRODUCTION]) + introduction, now_ms)
    answers: list[list[str]] = []
    refused: list[str] = []
    for subject, payload in frames:
        before = dict(peering.refused)
        peering.received(_LINK, subject, payload, now_ms)
        refused += [code for code, count in peering.refused.items() if count != before.get(code, 0)]
        answers.append([
            name
            for out in peering.poll(now_ms)
            for name in _name(out.payload, boxes.get(out.subject))
        ])  # fmt: skip
        refused += [code for peer in peering.peers for code in peer.problems]
    heard = sorted(peer.node.hex() for peer in peering.peers if peer.heard_ms is not None)
    known = sorted(peer.node.hex() for peer in peering.peers)
    in_step = sorted(peer.node.hex() for peer in peering.peers if peer.in_step_ms is not None)
    return next(iter(refused), ""), {"answers": answers, "heard": heard, "known": known, "in_step": in_step}


def _name(frame: bytes, box: Postbox | None) -> list[str]:
    """What a frame is; of a letter, what stands in it."""
    kind = Kind(frame[0])
    if kind is not Kind.LETTER or box is None:
        return [kind.name] if kind is not Kind.HERE else []
    _, content = box.open(frame[1:])
    return [type(decode_message(decode_speech(content).message)).__name__]
