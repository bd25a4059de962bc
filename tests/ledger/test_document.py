"""The Automerge document: the same bytes on every node, whatever the order of arrival (R4)."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from automerge import core
from hypothesis import given
from hypothesis import strategies as st

from ledger import document as module
from ledger.document import (
    LIVE_BRANCHES_MAX,
    DocumentEvent,
    build,
    events_of,
    extend,
    heads,
    order,
    topological,
)
from ledger.errors import LedgerBug
from ledger.ids import Link

GOLDEN = Path(__file__).parent / "golden" / "automerge.json"
CASES = json.loads(GOLDEN.read_text())["cases"]


def link(name: object) -> Link:
    return Link(hashlib.sha256(repr(name).encode()).digest())


def event(name: object, *parents: object, text: str | None = None) -> DocumentEvent:
    return DocumentEvent(link(name), tuple(sorted(link(p) for p in parents)), text or f'{{"name":"{name}"}}')


def read(case: dict[str, list[dict[str, str]]]) -> list[DocumentEvent]:
    return [
        DocumentEvent(
            Link(bytes.fromhex(e["id"])), tuple(Link(bytes.fromhex(p)) for p in e["parents"]), e["text"]
        )
        for e in case["events"]
    ]


@st.composite
def histories(draw: st.DrawFn, *, size: int = 14) -> list[DocumentEvent]:
    """Any history: branches, joins, several beginnings, parents that are ancestors of other parents."""
    salt = draw(st.integers(0, 10**6))
    made: list[DocumentEvent] = []
    for number in range(draw(st.integers(0, size))):
        parents = draw(st.sets(st.integers(0, number - 1), max_size=4)) if number else set()
        made.append(event((salt, number), *((salt, parent) for parent in parents)))
    return made


# --- the same on every node -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_bytes_are_those_published(case: dict[str, list[dict[str, str]]]) -> None:
    """The file is one for both versions of Automerge: each proves it where it is installed."""
    events = read(case)
    for seed in range(3):
        random.Random(seed).shuffle(events)
        assert build(events).hex() == case["saved"]
    assert [head.hex() for head in heads(events)] == case["heads"]
    assert [waiting.hex() for waiting in order(events).waiting] == case["waiting"]


@given(histories(), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_bytes(events: list[DocumentEvent], rng: random.Random) -> None:
    saved = build(events)
    for _ in range(3):
        rng.shuffle(events)
        assert build(events) == saved
    assert build(events + events[: len(events) // 2]) == saved


@given(histories(), st.data())
def test_extending_gives_what_building_gives(events: list[DocumentEvent], data: st.DataObject) -> None:
    """In any number of steps, with repetitions; what waited is given again, as it is in no document."""
    shuffled = data.draw(st.permutations(events))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))
    saved, start = build([]), 0
    for cut in [*cuts, len(events)]:
        saved = extend(
            saved, [*order(shuffled[:start]).events[-1:], *_waiting(shuffled[:start]), *shuffled[start:cut]]
        )
        start = cut
        assert saved == build(shuffled[:cut])


def _waiting(events: list[DocumentEvent]) -> list[DocumentEvent]:
    waiting = set(order(events).waiting)
    return [e for e in events if e.id in waiting]


@given(histories())
def test_every_event_is_read_back_in_canonical_order(events: list[DocumentEvent]) -> None:
    assert list(events_of(build(events)).items()) == [(e.id, e.text) for e in order(events).events]


def test_more_branches_than_are_kept_live_give_the_same_bytes() -> None:
    width = LIVE_BRANCHES_MAX * 2 + 1
    events = [event("root")]
    for step in range(6):
        events += [event((branch, step), (branch, step - 1) if step else "root") for branch in range(width)]
    events.append(event("join", *((branch, 5) for branch in range(width))))
    saved = build(events)
    assert extend(build(events[:20]), events[20:]) == saved == build(events[::-1])
    assert len(events_of(saved)) == len(events)


def test_a_history_without_branches_never_copies_the_document() -> None:
    """What makes it fast; the bytes would be the same."""
    growing = module._Growing(core, core.Document(module._FIRST_ACTOR))
    growing.grow(event(n, *([n - 1] if n else [])) for n in range(20))
    assert not growing._branches


_SCRIPT = """
import json, sys, hashlib
from tests.ledger.test_document import CASES, read
from ledger.document import build, extend
for case in CASES:
    events = read(case)
    half = build(events[: len(events) // 2])
    print(hashlib.sha256(build(set(events)) + extend(half, set(events))).hexdigest())
"""


def test_hash_seeds_change_nothing() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", _SCRIPT], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        ).stdout
        for seed in ("0", "1", "4242")
    }  # fmt: skip
    assert len(outputs) == 1


def test_any_automerge_opens_it_and_finds_events_under_their_ids() -> None:
    saved = build([event("a", text='{"type":"PrescriptionIssued"}'), event("b", "a")])
    document = core.Document.load(saved)
    assert sorted(document.keys(core.ROOT)) == sorted([link("a").hex(), link("b").hex()])
    value = document.get(core.ROOT, link("a").hex())
    assert value is not None
    assert value[0][1] == '{"type":"PrescriptionIssued"}'
    assert {bytes(change.actor_id) for change in document.get_changes([])} == {link("a"), link("b")}


@given(histories())
def test_an_event_is_the_same_change_in_every_document_that_holds_it(events: list[DocumentEvent]) -> None:
    ordered = order(events).events
    hashes = {bytes(c.actor_id): c.hash for c in core.Document.load(build(ordered)).get_changes([])}
    part = core.Document.load(build(ordered[: len(ordered) // 2])).get_changes([])
    assert all(hashes[bytes(change.actor_id)] == change.hash for change in part)


# --- the canonical order ----------------------------------------------------------------------------------------


@given(histories(size=30))
def test_the_order_is_parents_first_and_smallest_id_next(events: list[DocumentEvent]) -> None:
    ordered = topological({e.id: e.parents for e in events})
    assert sorted(ordered) == sorted(e.id for e in events)
    left = {e.id: set(e.parents) for e in events}
    for chosen in ordered:
        assert chosen == min(candidate for candidate, parents in left.items() if not parents & left.keys())
        del left[chosen]


def test_parents_outside_the_set_do_not_hold_the_order_up() -> None:
    assert topological({link("b"): [link("a")], link("c"): [link("b")]}) == [link("b"), link("c")]


def test_a_cycle_is_left_out_of_the_order_and_waits() -> None:
    events = [event("a", "b"), event("b", "a"), event("c"), event("d", "a"), event("e", "e")]
    assert set(topological({e.id: e.parents for e in events})) == {link("c")}
    ordered = order(events)
    assert [e.id for e in ordered.events] == [link("c")]
    assert ordered.waiting == tuple(sorted(link(name) for name in "abde"))


def test_a_long_history_is_ordered_without_recursion() -> None:
    events = [event(n, *([n - 1] if n else [])) for n in range(20_000)]
    assert [e.id for e in order(events[::-1]).events] == [e.id for e in events]


# --- what is missing ------------------------------------------------------------------------------------------------


@given(histories(), st.data())
def test_events_wait_for_their_ancestors_and_come_in_when_these_do(
    events: list[DocumentEvent], data: st.DataObject
) -> None:
    lost = set(data.draw(st.lists(st.sampled_from([e.id for e in events]), max_size=3))) if events else set()
    held = [e for e in events if e.id not in lost]
    ordered = order(held)
    present = {e.id for e in ordered.events}
    assert present | set(ordered.waiting) == {e.id for e in held}
    assert all(set(e.parents) <= present for e in ordered.events)
    assert all(not set(e.parents) <= present for e in held if e.id in ordered.waiting)
    assert build(held) == build(ordered.events)
    assert extend(build(held), events) == build(events)


def test_heads_are_of_what_stands_in_the_document() -> None:
    events = [event("a"), event("b", "a"), event("c", "a"), event("d", "c", "missing")]
    assert heads(events) == tuple(sorted([link("b"), link("c")]))
    assert heads([]) == ()


# --- failures ---------------------------------------------------------------------------------------------------------


def test_two_events_under_one_id_are_a_bug_of_ours() -> None:
    one, other = event("a", text="1"), event("a", text="2")
    with pytest.raises(LedgerBug, match="one id"):
        build([one, other])
    with pytest.raises(LedgerBug, match="one id"):
        extend(build([one]), [other])


@pytest.mark.parametrize("saved", [b"", b"\0", b"\x85oJ\x83", b"\x85oJ\x83" + bytes(60)])
def test_bytes_that_are_no_document_are_a_bug_of_ours(saved: bytes) -> None:
    with pytest.raises(LedgerBug):
        events_of(saved)
    with pytest.raises(LedgerBug):
        extend(saved, [event("a")])


def test_a_damaged_document_is_never_read() -> None:
    saved = build([event("a"), event("b", "a")])
    for place in range(len(saved)):
        with pytest.raises(LedgerBug):
            events_of(saved[:place])
    for place in range(8):  # Magic number and checksum; the checksum answers for the rest.
        changed = bytearray(saved)
        changed[place] ^= 1
        with pytest.raises(LedgerBug):
            events_of(bytes(changed))


def test_a_document_that_holds_something_else_is_a_bug_of_ours() -> None:
    foreign = core.Document(b"\1" * 32)
    with foreign.transaction() as transaction:
        transaction.put(core.ROOT, "elsewhere", core.ScalarType.Str, "x")
    with pytest.raises(LedgerBug, match="no event"):
        events_of(foreign.save())


class PanicException(BaseException):
    """Like the class that panics in Rust arrive as: it cannot be imported, and is no ``Exception``."""


@pytest.mark.parametrize(
    "failure", [PanicException("index out of bounds"), Exception("duplicate seq"), RuntimeError()]
)
def test_what_automerge_raises_leaves_as_a_bug_without_content(failure: BaseException) -> None:
    with pytest.raises(LedgerBug) as caught, module._automerge():
        raise failure
    assert caught.value.__cause__ is failure
    assert not str(failure) or str(failure) not in str(caught.value)


@pytest.mark.parametrize("passing", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), MemoryError()])
def test_what_is_not_automerges_passes(passing: BaseException) -> None:
    with pytest.raises(type(passing)), module._automerge():
        raise passing


def test_a_failed_event_leaves_no_transaction_open() -> None:
    """Text that cannot be UTF-8 fails inside the transaction; the next document is built as if nothing had been."""
    with pytest.raises(LedgerBug):
        build([event("a"), event("b", "a", text="\ud800")])
    assert len(events_of(build([event("a"), event("b", "a")]))) == 2
