"""The AsyncAPI document is true: of what nodes send each other nothing is missing in it, and nothing in it is never sent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from benchmarks.world import DISTRICT, PHARMACIST, PHARMACY, PRESCRIBER, SmallRealm, order
from ledger import NodeRole, Supply
from ledger.ids import GOVERNANCE, NodeId
from nodes import reconciliation
from nodes.messages import VERSION
from nodes.nats import subjects
from nodes.requests import Told
from nodes.wire import FRAME_BYTES_MAX, Kind, Speech, decode_speech, encode_speech
from tests.nodes.net_for_tests import Member, Net, VirtualClock, in_step

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
DOCUMENT: dict[str, Any] = msgspec.json.decode((SCHEMAS / "asyncapi.json").read_bytes())
NETWORK: dict[str, Any] = msgspec.json.decode((SCHEMAS / "network.schema.json").read_bytes())
REGISTRY: Registry[Any] = Registry().with_resource("network.schema.json", Resource.from_contents(NETWORK))
MESSAGES: dict[str, dict[str, Any]] = DOCUMENT["components"]["messages"]
VALIDATORS = {
    (name, part): Draft202012Validator(message[part]["schema"], registry=REGISTRY)
    for name, message in MESSAGES.items()
    for part in ("headers", "payload")
    if part in message
}
FRAMES = {message["x-first-byte"]: name for name, message in MESSAGES.items() if "x-first-byte" in message}
BY_TAG = {message["x-tag"]: name for name, message in MESSAGES.items() if "x-tag" in message}
ADDRESSES = {
    name: re.compile(re.sub(r"\{\w+\}", r"[A-Za-z0-9_-]+", channel["address"].replace(".", r"\.")) + r"\Z")
    for name, channel in DOCUMENT["channels"].items()
    if channel["address"] is not None
}


class Heard(msgspec.Struct):
    """Everything that crossed, by name in the document."""

    frames: list[tuple[str, str, object]] = []
    """Channel, name, JSON of the body."""
    letters: list[tuple[NodeId, NodeId, str, dict[str, object], object]] = []
    """From, to, name, JSON of the first bytes, JSON of the message."""


def as_json(value: object) -> object:
    """A MessagePack value as JSON states it: bytes in base64, keys as text."""
    return msgspec.json.decode(msgspec.json.encode(value))


def opened(net: Net, everybody: dict[str, Member]) -> Heard:
    """What crossed a net, letters opened with the keys of whom they were sent to."""
    heard = Heard()
    boxes = {subjects.mailbox(m.ledger.node.realm.id, m.node): m for m in everybody.values()}
    for subject, payload in net.seen:
        (channel,) = (name for name, address in ADDRESSES.items() if address.match(subject))
        name, body = FRAMES[payload[0]], payload[1:]
        assert len(payload) <= DOCUMENT["x-frame-bytes-max"] == FRAME_BYTES_MAX
        assert name in DOCUMENT["channels"][channel]["messages"], f"{name} on {channel}"
        packed = MESSAGES[name]["contentType"] == "application/vnd.msgpack"
        heard.frames.append((channel, name, as_json(msgspec.msgpack.decode(body) if packed else body)))
        if payload[0] != Kind.LETTER or subject not in boxes:
            continue
        receiver = boxes[subject]
        sender, content = receiver.peering.peers.postbox.open(body)
        speech = decode_speech(content)
        value = msgspec.msgpack.decode(speech.message, strict=False)
        head = {"round": as_json(speech.round), "number": speech.number}
        heard.letters.append((sender, receiver.node, BY_TAG[value[1][0]], head, as_json(value)))
        assert len(speech.message) <= DOCUMENT["x-message-bytes-max"]
    return heard


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heard]:
    """A story in which everything is said that nodes have to say."""
    clock = VirtualClock()
    realm = SmallRealm(tmp_path_factory.mktemp("story"), clock=clock)
    net = Net(clock)
    relay, far = realm.enrol("relay", NodeRole.RELAY), realm.enrol("far", NodeRole.PHARMACY, "SE-C-0380")
    agency, prescriber, pharmacy = realm.agency, realm.prescriber, realm.pharmacy
    agency.node.own_feed(DISTRICT)
    realm.replicate()
    everybody = {
        name: net.join(name, ledger)
        for name, ledger in (("agency", agency), ("pharmacy", pharmacy), ("relay", relay), ("far", far))
    }
    with pytest.MonkeyPatch.context() as patched:
        # Buckets are compared from a hundred feeds on; here from two.
        patched.setattr(reconciliation, "BUCKETED_FEEDS", 2)
        _thin(net, prescriber, pharmacy, agency)
        everybody["prescriber"] = net.join("prescriber", prescriber)
        net.run_until(lambda: in_step(agency, prescriber, pharmacy, districts=[GOVERNANCE, DISTRICT]), 90_000)
        net.run(30_000)
        _asked(net, everybody)
        _newer(net, everybody)
        net.run(30_000)
    yield opened(net, everybody)
    for ledger in (relay, far):
        ledger.close()
    realm.close()


def _thin(net: Net, prescriber: Any, pharmacy: Any, agency: Any) -> None:
    """On a thin link: prescriptions, and an urgent supply ahead of what waits before it."""
    document = prescriber.prescribe(order(0, holder=pharmacy.node.identity.node), person=PRESCRIBER).document
    prescriber.prescribe(order(1, holder=agency.node.identity.node), person=PRESCRIBER)
    net.join("prescriber", prescriber, thin_bits=9600)
    net.run_until(lambda: in_step(prescriber, pharmacy, districts=[GOVERNANCE, DISTRICT]), 120_000)
    net.leave("prescriber")
    for _ in range(20):
        pharmacy.not_dispensed(document, 1, "väntar", person=PHARMACIST)
    pharmacy.dispense(document, Supply(fill=1, quantity=100, pharmacy=PHARMACY), person=PHARMACIST)
    member = net.join("prescriber", prescriber, thin_bits=9600)
    there = net.members.pop("pharmacy")
    pharmacy.node.on_written.remove(there.peering.written)
    net.join("pharmacy", pharmacy, thin_bits=9600)
    net.run_until(lambda: in_step(prescriber, pharmacy, districts=[GOVERNANCE, DISTRICT]), 120_000)
    assert member.peering.peers.peers
    net.leave("pharmacy")
    net.leave("prescriber")
    net.members["pharmacy"] = there
    pharmacy.node.on_written.append(there.peering.written)


def _asked(net: Net, everybody: dict[str, Member]) -> None:
    """A claim and a fetch, both granted."""
    agency, pharmacy = everybody["agency"], everybody["pharmacy"]
    document = next(
        d for d, state in agency.ledger.inquiry.states() for f in state.prescription.fills
        if f.holder and agency.ledger.node.reader.author(f.holder)[0].node == agency.node  # type: ignore[arg-type]
    )  # fmt: skip
    claimed: list[Told] = []
    pharmacy.peering.requests.claim(
        agency.node, document, (1,), command=b"c" * 16, now_ms=net.clock.time,
        deadline_ms=net.clock.time + 60_000, done=claimed.append,
    )  # fmt: skip
    fetched: list[Told] = []
    everybody["far"].peering.requests.fetch(
        pharmacy.node, request=b"f" * 16, person=PHARMACIST, purpose="evakuerad patient",
        patient=order(0, holder=None).patient, now_ms=net.clock.time, deadline_ms=net.clock.time + 60_000,
        done=fetched.append,
    )  # fmt: skip
    net.run_until(lambda: bool(claimed and fetched), 70_000)
    assert [claimed[0].code, fetched[0].code] == ["", ""]


def _newer(net: Net, everybody: dict[str, Member]) -> None:
    """A peer speaks a later version."""
    pharmacy, prescriber = everybody["pharmacy"], everybody["prescriber"]
    later = msgspec.msgpack.encode([VERSION + 1, [1]])
    box = prescriber.peering.peers.postbox
    box.know(pharmacy.ledger.node.identity)
    letter = box.seal(pharmacy.node, encode_speech(Speech(b"r" * 8, 0, later)))
    pharmacy.peering.received("hub", "mailbox", bytes([Kind.LETTER]) + letter, net.clock.time)


def test_everything_that_crosses_is_as_the_document_says(heard: Heard) -> None:
    for channel, name, body in heard.frames:
        VALIDATORS[name, "payload"].validate(body)
        assert name in DOCUMENT["channels"][channel]["messages"]
    for _, _, name, head, message in heard.letters:
        VALIDATORS[name, "headers"].validate(head)
        VALIDATORS[name, "payload"].validate(message)
        assert name in DOCUMENT["channels"]["letters"]["messages"]


def test_every_message_of_the_document_is_sent_and_no_other(heard: Heard) -> None:
    seen = Counter([name for _, name, _ in heard.frames] + [name for _, _, name, _, _ in heard.letters])
    assert set(seen) == set(MESSAGES)
    listed = {name for channel in DOCUMENT["channels"].values() for name in channel["messages"]}
    assert listed == set(MESSAGES)
    assert {channel for channel, _, _ in heard.frames} == set(ADDRESSES)


def test_what_is_asked_is_answered_as_the_document_says(heard: Heard) -> None:
    """A claim, a fetch and a question who it is: the answer to it goes back the other way."""
    conversation = [
        *((sender, to, name) for sender, to, name, _, _ in heard.letters),
        *(("", "", name) for _, name, _ in heard.frames if name in {"WHO", "INTRODUCTION"}),
    ]
    for operation in ("askWho", "claim", "fetch"):
        (asked,) = DOCUMENT["operations"][operation]["messages"]
        replies = {
            m["$ref"].rsplit("/", 1)[1] for m in DOCUMENT["operations"][operation]["reply"]["messages"]
        }
        name = asked["$ref"].rsplit("/", 1)[1]
        places = [n for n, (_, _, said) in enumerate(conversation) if said == name]
        assert places
        for place in places[-1:]:
            sender, to, _ = conversation[place]
            assert any(
                (a, b) == (to, sender) and said in replies for a, b, said in conversation[place + 1 :]
            ), f"{name} was not answered by any of {replies}"


def test_a_peer_that_speaks_a_later_version_is_told_so_and_which_one_is_spoken_here(heard: Heard) -> None:
    refusals = [message for _, _, name, _, message in heard.letters if name == "Refusal"]
    assert [VERSION, [5, "version-unknown", VERSION]] in refusals


def test_the_document_finds_what_is_not_as_it_says() -> None:
    """The check itself: a wrong length, a wrong version, a missing field and a wrong key are found."""
    good: list[Any] = [1, [1, "A" * 22 + "==", {"governance": "A" * 43 + "="}]]
    digest = VALIDATORS["Digest", "payload"]
    digest.validate(good)
    for bad in (
        [2, good[1]],
        [1, [2, *good[1][1:]]],
        [1, good[1][:2]],
        [1, [1, "AAAA", good[1][2]]],
        [1, [1, good[1][1], {"": "A" * 44}]],
        [*good, 0],
    ):
        assert not digest.is_valid(bad), bad
    frontier = VALIDATORS["Frontier", "payload"]
    assert frontier.is_valid([1, [2, {"governance": {"A" * 24: []}}]])
    assert not frontier.is_valid([1, [2, {"governance": {"A" * 8: []}}]])
