"""Judges one vector folder with the real code: the error code it ends in ("" if none) and what it found.

Each kind of check is one function; ``schemas/README.md`` says the same in words, for other implementations.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from ledger import Coded, Ledger, Person, PersonRole, SeededEntropy
from ledger.codec import decode_content
from ledger.document import DocumentEvent, build
from ledger.enrolment import DistrictKey, Enrolment, decode_package, decode_request, open_package, unwrap_key
from ledger.errors import PeerFault, RxLedgerError
from ledger.events import decode_event
from ledger.history import state_digest
from ledger.identity import NodeKeys, Realm, check_public_key, verify_chain
from ledger.ids import DocumentId, Link, NodeId
from ledger.keystore import UnlockFile
from ledger.paper import decode_paper, from_text, to_text
from ledger.persons import validate_identifier
from nodes.bundle import import_bundle
from nodes.claims import answer_claim
from nodes.envelope import Postbox
from nodes.messages import Entries, decode_message
from nodes.nats.subjects import mailbox
from scripts.vectors.hearing import hear

__all__ = ["CHECKS", "Verdict", "judge", "open_reader", "take"]

Json: TypeAlias = Any
"""What a vector's JSON holds: read by name, so a wrong name fails the vector."""
Verdict: TypeAlias = tuple[str, dict[str, Json]]


class _Clock:
    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms


class Folder:
    """A vector folder: its description, its files, the realm it belongs to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.vector: dict[str, Json] = msgspec.json.decode((path / "vector.json").read_bytes())
        self.inputs: dict[str, Json] = self.vector["inputs"]
        self.realm: dict[str, Json] = msgspec.json.decode((path.parent / "realm.json").read_bytes())

    def data(self, name: str) -> bytes:
        """An input: bytes in hex, or the name of a file of this folder after ``file:``."""
        return self.read(self.inputs[name])

    def read(self, value: str) -> bytes:
        """The bytes that a value stands for."""
        if value.startswith("file:"):
            return (self.path / value.removeprefix("file:")).read_bytes()
        return bytes.fromhex(value)

    def keys(self, member: str) -> NodeKeys:
        """A member's private keys."""
        return NodeKeys.from_bytes(bytes.fromhex(self.realm["nodes"][member]["keys"]))

    @property
    def root(self) -> Realm:
        """The realm."""
        return Realm.from_certificate(bytes.fromhex(self.realm["root_certificate"]))

    @contextmanager
    def reader(self) -> Iterator[Ledger]:
        """A node of the agency that holds every key and no entry."""
        with tempfile.TemporaryDirectory() as directory, open_reader(Path(directory), self.realm) as ledger:
            yield ledger


@contextmanager
def open_reader(directory: Path, realm: dict[str, Json]) -> Iterator[Ledger]:
    """The same, in a directory, for a realm as ``realm.json`` states it."""
    entropy, unlock = SeededEntropy(1), UnlockFile(directory / "unlock" / "secret")
    unlock.ensure(entropy)
    me, keys, index = realm["nodes"]["reader"], realm["district_keys"], realm["index_keys"]
    enrolment = Enrolment(
        Realm.from_certificate(bytes.fromhex(realm["root_certificate"])),
        tuple(bytes.fromhex(c) for c in me["certificates"]),
        tuple(DistrictKey(d, int(e), bytes.fromhex(k)) for d, held in keys.items() for e, k in held.items()),
        {d: bytes.fromhex(k) for d, k in index.items()},
    )
    ledger = Ledger.create(
        directory / "node", enrolment, NodeKeys.from_bytes(bytes.fromhex(me["keys"])), unlock,
        clock=_Clock(realm["now_ms"] + 86_400_000), entropy=entropy,
    )  # fmt: skip
    with ledger:
        yield ledger


def judge(path: Path) -> Verdict:
    """Run the check that a vector names."""
    folder = Folder(path)
    try:
        return CHECKS[folder.vector["check"]](folder)
    except RxLedgerError as error:
        return error.code, {}


# --- values --------------------------------------------------------------------------------------------------


def _public_keys(folder: Folder) -> Verdict:
    check_public_key(folder.data("signing"), folder.data("wrapping"))
    return "", {}


def _identifier(folder: Folder) -> Verdict:
    given = folder.inputs
    found = validate_identifier(given["system"], given["code"], today=date.fromisoformat(given["today"]))
    return "", {"system": found.system, "code": found.code}


def _event(folder: Folder) -> Verdict:
    found = decode_event(folder.data("event"))
    return "", {"kind": found.kind, "known": found.event is not None, "whole": found.whole}


def _content(folder: Folder) -> Verdict:
    found = decode_content(folder.data("content"))
    return "", {
        "document": found.document.hex(),
        "parents": [p.hex() for p in found.parents],
        "event": found.event_bytes.hex(),
    }


def _chain(folder: Folder) -> Verdict:
    found = verify_chain(folder.root, tuple(folder.read(c) for c in folder.inputs["certificates"]))
    return "", {
        "node": found.node.hex(),
        "role": found.role.value,
        "district": found.district,
        "name": found.name,
    }


def _unwrap(folder: Folder) -> Verdict:
    key = unwrap_key(
        folder.keys(folder.inputs["node"]).wrapping, folder.data("wrapped"), folder.data("context")
    )
    return "", {"key": key.hex()}


def _request(folder: Folder) -> Verdict:
    found = decode_request(folder.data("request"))
    return "", {"role": found.role.value, "district": found.district, "name": found.name}


def _package(folder: Folder) -> Verdict:
    package = decode_package(folder.data("package"))
    found = open_package(package, folder.keys(folder.inputs["node"]), realm=folder.root)
    return "", {
        "keys": [[k.district, k.epoch, k.key.hex()] for k in found.district_keys],
        "index_keys": {d: k.hex() for d, k in sorted(found.index_keys.items())},
    }


def _automerge(folder: Folder) -> Verdict:
    events = [
        DocumentEvent(
            Link(bytes.fromhex(e["id"])), tuple(Link(bytes.fromhex(p)) for p in e["parents"]), e["json"]
        )
        for e in folder.inputs["events"]
    ]
    saved, again = build(events), build(reversed(events))
    if saved != again or saved != folder.data("saved"):
        return "other-bytes", {}
    return "", {"sha256": hashlib.sha256(saved).hexdigest()}


def _base45(folder: Folder) -> Verdict:
    data = from_text(folder.inputs["text"])
    if to_text(data) != folder.inputs["text"]:
        return "other-text", {}
    return "", {"bytes": data.hex()}


# --- what travels --------------------------------------------------------------------------------------------


def take(ledger: Ledger, data: bytes) -> list[str]:
    """Take in one replication message; the codes of what was refused, in order."""
    message = decode_message(data)
    assert isinstance(message, Entries)
    refused = []
    try:
        ledger.exchange.import_openings(message.openings)
    except PeerFault as error:
        refused.append(error.code)
    for proof in message.proofs:
        try:
            ledger.exchange.import_fork_proof(proof)
        except PeerFault as error:
            refused.append(error.code)
    report = ledger.exchange.import_runs(message.runs)
    return [*refused, *(code for _, code in report.refused), *("gap" for _ in report.gaps)]


def _hold(folder: Folder, ledger: Ledger, names: Sequence[str] | None = None) -> None:
    for name in folder.inputs.get("held", ()) if names is None else names:
        refused = take(ledger, folder.read(name))
        assert not refused, f"{folder.path.name}: what must be held already was refused: {refused}"


def _entries(ledger: Ledger) -> list[str]:
    """Links of all entries held."""
    return sorted(stored.link.hex() for _, stored in ledger.node.store.arrivals(0, 1 << 20))


def _message(folder: Folder) -> Verdict:
    with folder.reader() as ledger:
        _hold(folder, ledger)
        before = _entries(ledger)
        try:
            refused = take(ledger, folder.data("message"))
        except PeerFault as error:
            refused = [error.code]
        after = _entries(ledger)
        if refused:
            return refused[0] if after == before else "kept-something", {}
        forks = sorted(f.hex() for d in ledger.exchange.districts() for f in ledger.node.store.forks(d))
        return "", {"entries": [link for link in after if link not in before], "forked_feeds": forks}


def _detached(folder: Folder) -> Verdict:
    with folder.reader() as ledger:
        _hold(folder, ledger)
        message = decode_message(folder.data("message"))
        assert isinstance(message, Entries)
        (run,) = message.runs
        new = ledger.exchange.import_detached(run.feed, run.previous, run.entries[0])  # type: ignore[arg-type]
        return "", {"new": new}


def _bundle(folder: Folder) -> Verdict:
    with folder.reader() as ledger:
        report = import_bundle(ledger.exchange, io.BytesIO(folder.data("bundle")), realm=folder.root)
        found = {"new": report.new, "exporter": report.exporter}
        return "" if report.complete else "incomplete", found


def _paper(folder: Folder) -> Verdict:
    with folder.reader() as ledger:
        data = from_text(folder.inputs["text"]) if "text" in folder.inputs else folder.data("paper")
        decode_paper(data)
        found = ledger.papers.scan(data)
        return "", {
            "document": found.document.hex(),
            "district": found.district,
            "seeds": {str(fill): seed.hex() for fill, seed in sorted(found.seeds.items())},
        }


def _frames(folder: Folder) -> Verdict:
    """Give frames to the node `reader` as its server would."""
    members = {
        name: Postbox(
            folder.root,
            verify_chain(folder.root, tuple(map(bytes.fromhex, each["certificates"]))),
            folder.keys(name),
            SeededEntropy(2),
        )
        for name, each in folder.realm["nodes"].items()
    }
    with folder.reader() as ledger:
        me = ledger.node.identity
        for box in members.values():
            box.know(me)
        boxes = {
            mailbox(folder.root.id, NodeId(bytes.fromhex(folder.realm["nodes"][name]["node"]))): box
            for name, box in members.items()
        }
        _hold(folder, ledger)
        before = _entries(ledger)
        frames = [(each["subject"], folder.read(each["payload"])) for each in folder.inputs["frames"]]
        code, found = hear(ledger, map(folder.read, folder.inputs["introductions"]), frames, boxes)
        new = [link for link in _entries(ledger) if link not in before]
        return ("kept-something" if code and new else code), {**found, "entries": new}


def _claim(folder: Folder) -> Verdict:
    with folder.reader() as ledger:
        _hold(folder, ledger)
        person = Person(Coded("urn:rxledger:vector", "reader"), PersonRole.OFFICER)
        return "", {"command": answer_claim(ledger, folder.data("claim"), person=person).command.hex()}


# --- what it means -------------------------------------------------------------------------------------------


def described(ledger: Ledger) -> dict[str, Json]:
    """The states of all documents held, in words and as digests."""
    documents = {}
    for document, state in ledger.inquiry.states():
        p = state.prescription
        documents[document.hex()] = {
            "status": p.status.value,
            "dosage": list(p.dosage),
            "balance": msgspec.to_builtins(p.balance),
            "fills": [
                {"number": f.number, "status": f.status.value, "holder": f.holder.hex(), "remaining": f.remaining}
                for f in p.fills
            ],
            "supplies": [{"event": s.id.hex(), "fill": s.fill, "units": s.net} for s in p.supplies],
            "anomalies": [
                {
                    "id": a.id.hex(), "kind": a.kind, "fill": a.fill, "detail": a.detail,
                    "involved": [link.hex() for link in a.involved],
                }
                for a in p.anomalies
            ],
            "not_understood": [link.hex() for link in p.not_understood],
            "state_sha256": state_digest(p).hex(),
            "automerge_sha256": hashlib.sha256(ledger.node.reader.automerge(document)).hexdigest(),
        }  # fmt: skip
    return {
        "documents": documents,
        "state_digest": ledger.inquiry.state_digest().hex(),
        "frontier_digest": ledger.inquiry.frontier_digest().hex(),
    }


def _fold(folder: Folder) -> Verdict:
    """Fold in the order given, then in the opposite order with every message twice: the same must come out."""
    names = folder.inputs["messages"]
    results = []
    for order in (names, [name for name in reversed(names) for _ in range(2)]):
        with folder.reader() as ledger:
            _hold(folder, ledger, order)
            for name in order:  # What did not join anything the first time.
                take(ledger, folder.read(name))
            results.append(described(ledger))
    return ("", results[0]) if results[0] == results[1] else ("order-matters", {})


def _act(folder: Folder) -> Verdict:
    """Fold, then ask what is said against one event: the kind of anomaly that names it, for a void event its reason."""
    code, found = _fold(folder)
    if code:
        return code, {}
    event = folder.inputs["event"]
    against = [
        a["detail"] if a["kind"] == "void_event" else a["kind"]
        for state in found["documents"].values()
        for a in state["anomalies"]
        if event in a["involved"]
    ]
    wanted = folder.vector["expect"].get("error")
    return (wanted if wanted in against else ",".join(against)), found


def _governance(folder: Folder) -> Verdict:
    """What is in force; an event without effect is listed as refused."""
    with folder.reader() as ledger:
        _hold(folder, ledger, folder.inputs["messages"])
        view = ledger.node.reader.governance()
        node = NodeId(folder.data("node")) if "node" in folder.inputs else None
        found = {
            "level": view.level(folder.inputs["district"]).value,
            "retired_before": view.retired_before,
            "revoked": node is not None and view.revocation(node) is not None,
            "digest": view.digest().hex(),
        }
        event = folder.inputs.get("event")
        return "refused" if event and event in [link.hex() for link in view.refused] else "", found


def _unread(folder: Folder) -> Verdict:
    """Entries held whose key is not: counted, without effect."""
    with folder.reader() as ledger:
        _hold(folder, ledger, folder.inputs["messages"])
        state = ledger.node.reader.state(DocumentId(folder.data("document")))
        unread = state.unread if state is not None else 0
        return "unreadable" if unread else "", {"unread": unread}


CHECKS: dict[str, Callable[[Folder], Verdict]] = {
    "act": _act,
    "automerge": _automerge,
    "base45": _base45,
    "bundle": _bundle,
    "chain": _chain,
    "claim": _claim,
    "content": _content,
    "detached": _detached,
    "event": _event,
    "fold": _fold,
    "frames": _frames,
    "governance": _governance,
    "identifier": _identifier,
    "message": _message,
    "package": _package,
    "paper": _paper,
    "public-keys": _public_keys,
    "request": _request,
    "unread": _unread,
    "unwrap": _unwrap,
}
"""By the name that stands in ``vector.json``."""
