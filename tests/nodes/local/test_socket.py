"""What the owner's socket promises: the ledger's own methods, receipts and errors, for several processes at once."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import (
    CustodyPlan,
    InvalidInput,
    Ledger,
    Level,
    NodeRole,
    NotFound,
    NotPermitted,
    Policy,
    ReversalKind,
    SeededEntropy,
    StoreBusy,
    Supply,
    Verdict,
)
from ledger.enrolment import make_request, open_package
from ledger.errors import LedgerBug, OtherRealm, RxLedgerError, StoreDamaged, VersionUnknown
from ledger.identity import NodeKeys, verify_chain
from ledger.ids import DocumentId, Link, NodeId
from ledger.placement import PLAN_DAYS_MAX
from nodes.daemon.config import ReadinessConfig
from nodes.founding import open_issuer
from nodes.local import (
    OutcomeUnknown,
    OwnerClient,
    OwnerGone,
    OwnerSocket,
    RemoteLedger,
    connect_or_open,
    frames,
    server,
)
from nodes.local import client as client_module
from nodes.local.client import SharedLedger
from nodes.local.faults import problem_of, raised
from nodes.local.frames import GREETING, Hello, Outcome, Reply, Request, Welcome, read_frame, write_frame
from nodes.local.methods import method_of, methods
from tests.nodes.local.site_for_tests import (
    DISTRICT,
    DOCTOR,
    NUMBER,
    OFFICER,
    PATIENT,
    PHARMACIST,
    Site,
    order,
)

COMMAND = b"\x07" * 16


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def owner(site: Site) -> Iterator[OwnerSocket]:
    with site.open("clinic") as ledger, OwnerSocket(ledger, site.node("clinic")) as owner:
        yield owner


@pytest.fixture
def shared(site: Site, owner: OwnerSocket) -> Iterator[Ledger]:
    with connect_or_open(site.node("clinic"), site.unlock) as ledger:
        assert isinstance(ledger, SharedLedger)
        yield ledger


# --- the same ledger ------------------------------------------------------------------------------------------------


def test_what_is_written_through_the_socket_is_as_if_the_owner_wrote_it(site: Site, shared: Ledger) -> None:
    receipt = shared.prescribe(order(), person=DOCTOR, command=COMMAND)
    again = shared.prescribe(order(), person=DOCTOR, command=COMMAND)
    assert (again.link, again.document, again.repeated) == (receipt.link, receipt.document, True)
    answer = shared.show(receipt.document)
    assert answer.prescription.issued is not None
    assert answer.prescription.issued.patient == PATIENT
    assert receipt.document in shared.patient(PATIENT, person=DOCTOR, purpose="care").prescriptions
    shared.amend(receipt.document, person=DOCTOR, dosage="2 tabletter")
    assert shared.show(receipt.document).prescription.dosage == ("2 tabletter",)
    assert [line["kind"] for line in shared.inquiry.history(receipt.document)] == [
        "PrescriptionIssued",
        "PrescriptionAmended",
    ]
    # The node's own reader, open beside, sees the same.
    with Ledger.open(site.node("clinic"), site.unlock, writable=False) as beside:
        assert beside.show(receipt.document).prescription == shared.show(receipt.document).prescription


def test_every_kind_of_answer_crosses(shared: Ledger) -> None:
    receipt = shared.prescribe(order(bearer=True), person=DOCTOR)
    assert shared.level(DISTRICT) is Level.NORMAL
    assert shared.policy()[0].stale_hours == 24
    assert shared.today().year >= 2024
    assert shared.inquiry.frontier_digest([DISTRICT]) == shared.inquiry.frontier_digest([DISTRICT])
    assert shared.inquiry.agency_silence_ms() >= 0
    paper = shared.papers.print(receipt.document)
    assert shared.papers.scan(paper).seeds.keys() == {1, 2, 3}
    assert shared.automerge(receipt.document)
    assert shared.assess(receipt.document, Supply(fill=1)).verdict in Verdict
    assert DISTRICT in shared.exchange.districts()
    feed, heads = next(iter(shared.exchange.frontier(DISTRICT).items()))
    runs = list(shared.exchange.runs(feed, (), 1 << 20))
    assert sum(len(run.entries) for run in runs) == max(heads)[0]
    assert shared.exchange.import_runs(run for run in runs).known == max(heads)[0]
    assert shared.exchange.import_openings([shared.exchange.opening(feed)]) == 0
    assert shared.exchange.detached_links(DISTRICT) == []
    assert list(shared.anomalies()) == []
    assert shared.stewardship.take_epochs() == 0


def test_every_method_of_the_list_can_be_made_and_none_hands_out_a_secret() -> None:
    listed = methods()
    assert {"ledger.dispense", "stewardship.declare", "papers.scan", "exchange.import_runs"} <= listed.keys()
    forbidden = {"papers.seeds", "exchange.heard_from", "inquiry.verify", "node.secret_for", "ledger.close"}
    assert not forbidden & listed.keys()
    assert all("issuer" not in method.params.type.__struct_fields__ for method in listed.values())  # type: ignore[attr-defined]


def test_a_long_answer_comes_in_pages(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read side by side, by items and by bytes; more at once than a client may read end in an error, never short."""
    made: list[int] = []

    def count(upto: int, size: int) -> Iterator[bytes]:
        for number in range(upto):
            made.append(number)
            yield bytes([number]) * size

    counting = method_of("daemon.count", count, writes=False)
    monkeypatch.setattr(server, "PAGE_ITEMS_MAX", 3)
    monkeypatch.setattr(server, "PAGE_BYTES_MAX", 100)
    with site.open("clinic") as ledger, OwnerSocket(ledger, site.node("clinic")) as owner:
        owner.register("daemon.count", count)
        client = OwnerClient(owner.path)

        def counted(upto: int, size: int) -> Iterator[bytes]:
            pages = client.call(counting, {"upto": upto, "size": size})
            assert isinstance(pages, Iterator)
            return pages

        one, other = counted(7, 1), counted(7, 1)
        assert next(one) == b"\0"
        assert made == [0, 1, 2] * 2  # What nobody has asked for is not made.
        pairs = zip(one, other, strict=False)
        assert [a[0] - b[0] for a, b in pairs] == [1] * 6
        assert [len(item) for item in counted(4, 99)] == [99] * 4
        many = [counted(9, 1) for _ in range(server.CURSORS_MAX + 1)]
        with pytest.raises(InvalidInput, match="has ended"):
            list(many[0])
        assert len(list(many[-1])) == 9
        half = counted(9, 1)
        client.close()
        with pytest.raises(OwnerGone):
            list(half)
        client.close()


def test_a_process_without_keys_or_files_asks_the_owner_for_everything(owner: OwnerSocket) -> None:
    client = OwnerClient(owner.path)
    remote = RemoteLedger(client)
    receipt = remote.prescribe(order(), person=DOCTOR, command=b"\x31" * 16)
    assert remote.prescribe(order(), person=DOCTOR, command=b"\x31" * 16).repeated
    assert remote.show(receipt.document).prescription.issued.patient == PATIENT
    assert remote.inquiry.history(receipt.document)[0]["kind"] == "PrescriptionIssued"
    assert DISTRICT in remote.exchange.districts()
    assert client.node == owner._ledger.node.identity.node
    for face, name in ((remote, "close_node"), (remote.inquiry, "verify"), (remote.papers, "seeds")):
        with pytest.raises(AttributeError, match="cannot be called"):
            getattr(face, name)
    with pytest.raises(NotFound):
        remote.show(DocumentId(bytes(16)))
    remote.close()


# --- errors ----------------------------------------------------------------------------------------------------------


def test_refusals_cross_as_what_they_are(shared: Ledger) -> None:
    with pytest.raises(NotFound) as unknown:
        shared.show(DocumentId(bytes(16)))
    assert unknown.value.advice == "it may exist at nodes not heard"
    receipt = shared.prescribe(order(), person=DOCTOR)
    with pytest.raises(NotPermitted) as refused:
        shared.reverse(receipt.document, Link(bytes(32)), ReversalKind.BEFORE_HANDOVER, person=DOCTOR)
    assert refused.value.reasons == ("not-author",)
    with pytest.raises(NotPermitted):
        shared.stewardship.declare(Level.CRISIS, person=OFFICER)
    with pytest.raises(InvalidInput, match="16 bytes"):
        shared.prescribe(order(), person=DOCTOR, command=b"short")


@pytest.mark.parametrize(
    "error",
    [
        NotPermitted("no", reasons=("a", "b"), advice="do"),
        StoreDamaged("broken", where="feed 1"),
        OwnerGone("gone"),
        LedgerBug("ours"),
        StoreBusy("busy"),
    ],
)
def test_an_error_keeps_class_code_message_and_advice(error: NotPermitted | StoreDamaged) -> None:
    after = raised(
        msgspec.msgpack.decode(msgspec.msgpack.encode(problem_of(error)), type=type(problem_of(error)))
    )
    assert type(after) is type(error)
    assert (after.code, after.message, after.advice, str(after)) == (
        error.code, error.message, error.advice, str(error),
    )  # fmt: skip
    assert vars(after) == vars(error)


def test_an_error_of_a_newer_owner_is_told_all_the_same() -> None:
    problem = msgspec.structs.replace(problem_of(NotFound("hm")), kind="Invented")
    assert isinstance(raised(problem), LedgerBug)
    assert "hm" in raised(problem).message


def test_parameters_that_do_not_fit_are_named_without_their_values(shared: Ledger) -> None:
    with pytest.raises(InvalidInput) as wrong:
        shared.patient(order(), person=DOCTOR, purpose="care")  # type: ignore[arg-type]
    assert NUMBER not in str(wrong.value)
    with pytest.raises(InvalidInput, match=r"ledger\.show: document"):
        shared.show(17)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="cannot travel"):
        shared.show(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        shared.show()  # type: ignore[call-arg]


def test_an_issuing_key_never_travels_and_whom_it_certified_the_owner_announces(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def recorded(sock: socket.socket, message: msgspec.Struct) -> None:
        sent.append(msgspec.msgpack.encode(message))
        write_frame(sock, message)

    monkeypatch.setattr(client_module, "write_frame", recorded)
    issuer = open_issuer(site.agency.parent, site.unlock)
    keys = NodeKeys.generate(SeededEntropy(3))
    request = make_request(keys, NodeRole.PHARMACY, DISTRICT, "late")
    with (
        Ledger.open(site.agency, site.unlock) as agency,
        OwnerSocket(agency, site.agency) as owner,
        connect_or_open(site.agency, site.unlock) as shared,
    ):
        held = len(list(agency.inquiry.verify()))
        for _ in range(2):
            package = shared.stewardship.admit(request, person=OFFICER, issuer=issuer, command=COMMAND)
        assert len(list(agency.inquiry.verify())) == held + 1, "repeated, it is announced once"
        enrolment = open_package(package, keys)
        epochs = agency.node.keyring.epochs(DISTRICT)
        assert [(k.epoch, k.key) for k in enrolment.district_keys] == epochs
        assert {b"stewardship.announce" in one for one in sent if b"stewardship" in one} == {True}
        secrets = (issuer.key.private_bytes_raw(), *(key for _, key in epochs))
        assert not any(secret in one for secret in secrets for one in sent)

        with pytest.raises(NotPermitted, match="only the agency"):
            shared.stewardship.admit(request, person=OFFICER)
        remote = RemoteLedger(OwnerClient(owner.path))
        with pytest.raises(NotPermitted, match="issuing key"):
            remote.stewardship.admit(request, person=OFFICER, issuer=issuer)
        who = verify_chain(agency.node.realm, enrolment.certificates).node
        remote.stewardship.revoke(who, person=OFFICER, reason="stolen", good=[])
        with pytest.raises(NotPermitted, match="revoked"):  # Nor is it handed the keys of a later epoch.
            remote.stewardship.announce(list(enrolment.certificates), person=OFFICER)
        remote.close()


@pytest.mark.parametrize("name", ["clinic", "pharmacy"])
def test_nobody_but_agency_and_authority_hands_out_keys(site: Site, name: str) -> None:
    with site.open(name) as ledger, pytest.raises(NotPermitted, match="only the agency"):
        ledger.stewardship.announce(ledger.node.identity.certificates, person=OFFICER)


def test_a_fault_within_the_owner_is_a_typed_error_and_the_owner_goes_on(site: Site) -> None:
    def broken(number: int) -> int:
        raise RuntimeError(NUMBER)

    with site.open("clinic") as ledger, OwnerSocket(ledger, site.node("clinic")) as owner:
        owner.register("daemon.broken", broken)
        with connect_or_open(site.node("clinic"), site.unlock) as shared:
            assert isinstance(shared, SharedLedger)
            with pytest.raises(LedgerBug) as bug:
                shared.ask("daemon.broken", int, number=1)
            assert NUMBER not in str(bug.value)
            with pytest.raises(InvalidInput):
                shared.ask("daemon.broken", int, number="x")
            with pytest.raises(InvalidInput, match="no such method"):
                shared.ask("papers.seeds", list, command=bytes(16), fills=1)
            assert shared.today()


def test_what_the_owner_registers_can_be_asked(site: Site) -> None:
    with site.open("clinic") as ledger, OwnerSocket(ledger, site.node("clinic")) as owner:
        owner.register("daemon.site", lambda: ReadinessConfig(crisis_after_hours=5))
        with connect_or_open(site.node("clinic"), site.unlock) as shared:
            assert isinstance(shared, SharedLedger)
            assert shared.ask("daemon.site", ReadinessConfig).crisis_after_hours == 5
            with pytest.raises(VersionUnknown):
                shared.ask("daemon.site", int)


# --- who may, and where -------------------------------------------------------------------------------------------------


def test_the_socket_is_its_users_own_and_goes_with_its_owner(site: Site) -> None:
    path = site.node("clinic") / "owner.sock"
    with site.open("clinic") as ledger:
        with OwnerSocket(ledger, site.node("clinic")):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert path.lstat().st_uid == os.geteuid()
        assert not path.exists()


def test_a_dead_owners_socket_is_replaced_and_no_other_file(site: Site) -> None:
    path = site.node("clinic") / "owner.sock"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(str(path))
    dead.close()
    with (
        site.open("clinic") as ledger,
        OwnerSocket(ledger, site.node("clinic")),
        connect_or_open(site.node("clinic"), site.unlock) as shared,
    ):
        assert shared.today()
    path.write_text("notes")
    try:
        with site.open("clinic") as ledger, pytest.raises(InvalidInput, match="not a socket"):
            OwnerSocket(ledger, site.node("clinic")).start()
        assert path.read_text() == "notes"
    finally:
        path.unlink()


def test_a_socket_elsewhere_is_found_from_the_nodes_directory(site: Site, tmp_path: Path) -> None:
    """Also where its path is longer than the system takes for an address."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with site.open("clinic") as ledger:
        with (
            OwnerSocket(ledger, site.node("clinic"), path=deep / "o.sock"),
            connect_or_open(site.node("clinic"), site.unlock) as shared,
        ):
            assert isinstance(shared, SharedLedger)
            assert shared.today()
        assert not (deep / "o.sock").exists()
        assert not (site.node("clinic") / "owner.sock").is_symlink()


def test_a_reader_cannot_serve(site: Site) -> None:
    with Ledger.open(site.node("clinic"), site.unlock, writable=False) as reader, pytest.raises(InvalidInput):
        OwnerSocket(reader, site.node("clinic"))


def test_another_users_process_is_shown_the_door(
    site: Site, owner: OwnerSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's word, taken for another: starting processes of another user needs rights that tests have not."""
    monkeypatch.setattr(server, "peer_of", lambda sock: server_peer(4242))
    client = OwnerClient(site.node("clinic") / "owner.sock")
    assert not client.connect()
    until(lambda: owner.clients == 0)


def test_an_owner_of_another_user_is_not_trusted(
    site: Site, owner: OwnerSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "peer_of", lambda sock: server_peer(4242))
    with pytest.raises(NotPermitted):
        connect_or_open(site.node("clinic"), site.unlock)


def server_peer(user: int) -> object:
    from nodes.local.addresses import Peer

    return Peer(user, frozenset())


def test_a_group_may_be_let_in(site: Site, owner: OwnerSocket) -> None:
    from nodes.local.addresses import peer_of

    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        assert os.getegid() in peer_of(one).groups
        assert peer_of(one).user == os.geteuid()
    owner.close()
    with OwnerSocket(owner._ledger, site.node("clinic"), group=os.getegid()) as served:
        assert stat.S_IMODE(served.path.lstat().st_mode) == 0o660


# --- hostile and unlucky clients ----------------------------------------------------------------------------------------


def raw(site: Site) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(str(site.node("clinic") / "owner.sock"))
    return sock


def greeted(site: Site) -> socket.socket:
    sock = raw(site)
    write_frame(sock, Hello(GREETING, (1,)))
    frame = read_frame(sock, idle_s=10)
    assert frame is not None
    assert msgspec.msgpack.decode(frame, type=Welcome).version == 1
    return sock


def ended(sock: socket.socket) -> bool:
    sock.settimeout(10)
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x01\xc1",
        b"\0\0\0\x05abc",
        (4).to_bytes(4, "big") + msgspec.msgpack.encode([b"x", [1]])[:4],
    ],
)
def test_rubbish_ends_the_connection_and_nothing_else(site: Site, shared: Ledger, said: bytes) -> None:
    for make in (raw, greeted):
        with make(site) as sock:
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
            assert ended(sock)
    assert shared.today()


def test_a_client_of_another_version_is_told_so_on_both_sides(
    site: Site, owner: OwnerSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "VERSION", 9)
    with pytest.raises(VersionUnknown, match="version 1"):
        connect_or_open(site.node("clinic"), site.unlock)
    until(lambda: owner.clients == 0)


SMALL = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.text(max_size=20), st.binary(max_size=40),
    st.sampled_from([-(1 << 63), (1 << 64) - 1, 1 << 40, "x" * 5000, "2026-02-31", "9999-12-31"]),
    st.sampled_from([bytes(16), bytes(32), DISTRICT, "governance", "", 1, -1, NUMBER]),
    st.floats(allow_nan=False),
)  # fmt: skip
VALUES = st.recursive(
    SMALL, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4), max_leaves=8
)  # fmt: skip


def odd_like(value: object, data: st.DataObject) -> object:
    """Another value of the same type, which no honest caller would give."""
    if isinstance(value, msgspec.Struct):
        field = data.draw(st.sampled_from(value.__struct_fields__))
        odd = odd_like(getattr(value, field), data)
        try:
            return msgspec.structs.replace(value, **{field: odd})
        except InvalidInput:  # What no honest process can even make, a hostile one sends all the same.
            return {**msgspec.to_builtins(value, builtin_types=(bytes,)), field: odd}
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return data.draw(st.sampled_from([0, -1, 1 << 31, 1 << 53, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1]))
    if isinstance(value, bytes):
        return data.draw(st.binary(min_size=len(value), max_size=len(value)) | st.binary(max_size=64))
    if isinstance(value, str):
        long = st.sampled_from(["x" * 20_000, "2026-02-31", "9999-12-31", "\0", "\u202e"])
        return data.draw(st.text(max_size=12) | long)
    if isinstance(value, list | tuple):
        return data.draw(st.sampled_from([[], list(value) * 3, list(value) * 5000]))
    return data.draw(SMALL)


@pytest.fixture(scope="module")
def abused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A node of its own: what is written to it is as odd as what was asked."""
    site = Site(tmp_path_factory.mktemp("abused"))
    with (
        site.open("clinic") as ledger,
        OwnerSocket(ledger, site.node("clinic")),
        connect_or_open(site.node("clinic"), site.unlock) as shared,
    ):
        yield shared


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_parameters_come_the_answer_is_a_result_or_a_typed_refusal(
    abused: Ledger, data: st.DataObject
) -> None:
    """Never a fault of the owner's, or of its disk."""
    assert isinstance(abused, SharedLedger)
    method = data.draw(st.sampled_from(sorted(methods().values(), key=lambda m: m.name)))
    names = [n for n in method.signature.parameters if n not in ("self", "issuer")]
    document = abused.prescribe(order(bearer=True), person=DOCTOR, command=b"\x0d" * 16).document
    usual: dict[str, object] = {
        "person": DOCTOR, "order": order(), "patient": PATIENT, "supply": Supply(fill=1), "command": None,
        "document": document, "reason": "x", "purpose": "x", "fills": [1], "fill": 1, "quantity": 1, "days": 1,
        "plan": CustodyPlan(), "district": DISTRICT, "to": abused.node.identity.node, "policy": Policy(),
        "feed": bytes(16), "link": bytes(32), "dosage": "1 tablett", "instructions": None, "purposes": ["x"],
        "decision": "x", "anomaly": bytes(16), "comment": "", "external_id": DOCTOR.code, "successor": bytes(16),
        "kind": "backa", "level": "crisis", "districts": [], "limit": 5, "budget_bytes": 100, "after": [], "data": b"",
        "delegation": bytes(32), "before_month": 5, "new_epoch": False, "good": None, "revoked": bytes(16),
        "legal_basis": "", "runs": [], "openings": [], "previous": bytes(32),
    }  # fmt: skip
    if method.name in ("ledger.reverse", "ledger.correct", "ledger.link_supply", "papers.slip"):
        usual["supply"] = bytes(32)
    if method.name == "ledger.cancel":
        usual["reason"] = 4
    given_ = {name: usual[name] if name in usual else data.draw(VALUES) for name in names}
    if names and data.draw(st.integers(0, 9)):
        odd = data.draw(st.sampled_from(names))
        given_[odd] = odd_like(given_[odd], data) if data.draw(st.integers(0, 4)) else data.draw(VALUES)
    try:
        answer = abused._client.call(method, given_)
        if isinstance(answer, Iterator):
            list(answer)
    except (LedgerBug, StoreDamaged) as bug:
        raise AssertionError(f"{method.name}: {bug.message}") from bug
    except RxLedgerError:
        pass
    assert abused.today()


@pytest.mark.parametrize("days", [-1, PLAN_DAYS_MAX + 1, 1 << 62])
def test_a_plan_that_no_calendar_can_hold_is_refused_in_words(shared: Ledger, days: int) -> None:
    assert isinstance(shared, SharedLedger)
    with pytest.raises(InvalidInput, match="days"):
        CustodyPlan(days=days)
    sent = {"plan": {"days": days, "custodians": {}}, "person": PHARMACIST}
    with pytest.raises(InvalidInput, match="days"):
        shared._client.call(methods()["ledger.plan_custody"], sent)
    for bound in (0, PLAN_DAYS_MAX):
        assert shared.plan_custody(CustodyPlan(days=bound), person=DOCTOR) == []


def test_half_a_frame_holds_up_nobody_and_not_for_long(
    site: Site, shared: Ledger, owner: OwnerSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "FRAME_SECONDS", 1.0)
    with greeted(site) as sock:
        sock.sendall(b"\0\0")
        assert shared.today()
        assert ended(sock)
    until(lambda: owner.clients == 1)


def test_a_client_that_does_not_read_is_dropped(
    site: Site, shared: Ledger, owner: OwnerSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = shared.prescribe(order(), person=DOCTOR).document
    monkeypatch.setattr(frames, "FRAME_SECONDS", 1.0)
    with greeted(site) as sock:
        params = msgspec.Raw(msgspec.msgpack.encode({"document": document}))
        ask = msgspec.msgpack.encode(Request(1, "ledger.show", params))
        ask = len(ask).to_bytes(4, "big") + ask
        sock.settimeout(5)
        # More than both buffers take, so that the owner has nowhere to put its answers.
        until(lambda: not taken(sock, ask * 1000))
    assert shared.today()
    until(lambda: owner.clients == 1)


def taken(sock: socket.socket, data: bytes) -> bool:
    try:
        sock.sendall(data)
    except OSError:
        return False
    return True


def test_a_client_that_dies_in_a_call_has_had_its_effect_once(site: Site, shared: Ledger) -> None:
    given = {"order": order(), "person": DOCTOR, "command": b"\x09" * 16}
    with greeted(site) as sock:
        write_frame(sock, Request(1, "ledger.prescribe", msgspec.Raw(msgspec.msgpack.encode(given))))
    until(lambda: shared.node.store.command(b"\x09" * 16) is not None)
    assert shared.prescribe(order(), person=DOCTOR, command=b"\x09" * 16).repeated


def test_more_clients_than_there_is_room_for_are_refused_and_those_within_go_on(
    site: Site, shared: Ledger, owner: OwnerSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CLIENTS_MAX", 3)
    others = [greeted(site), greeted(site)]
    try:
        until(lambda: owner.clients == 3)
        client = OwnerClient(site.node("clinic") / "owner.sock")
        assert not client.connect()
        assert shared.today()
        others.pop().close()
        until(lambda: owner.clients == 2)
        until(client.connect)
        client.close()
    finally:
        for sock in others:
            sock.close()


def test_large_requests_wait_their_turn(site: Site, shared: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LARGE_BYTES", 1)
    monkeypatch.setattr(server, "FRAME_SECONDS", 0.2)
    stalled = [greeted(site) for _ in range(server.LARGE_AT_ONCE)]
    try:
        for sock in stalled:
            sock.sendall(b"\0\1\0\0")
        # Those two hold the room that there is; a third is turned away, not queued for ever.
        with greeted(site) as sock:
            sock.sendall(b"\0\1\0\0")
            assert ended(sock)
    finally:
        for sock in stalled:
            sock.close()
    until(lambda: bool(retried(shared)))


def retried(shared: Ledger) -> object:
    try:
        return shared.today()
    except OwnerGone:
        return None


def test_clients_at_once_get_their_own_answers(site: Site, owner: OwnerSocket) -> None:
    wrong: list[str] = []

    def work(seed: int) -> None:
        with connect_or_open(site.node("clinic"), site.unlock) as mine:
            for number in range(10):
                command = bytes([seed, number]) * 8
                receipt = mine.prescribe(order(dosage=f"{seed} {number}"), person=DOCTOR, command=command)
                if mine.show(receipt.document).prescription.dosage != (f"{seed} {number}",):
                    wrong.append(f"{seed} {number}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    until(lambda: owner.clients == 0)


# --- an owner that goes ---------------------------------------------------------------------------------------------------


def test_an_owner_that_stops_lets_a_call_end(site: Site) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        began.set()
        assert go_on.wait(10)
        return 7

    answers: list[int] = []
    with site.open("clinic") as ledger:
        owner = OwnerSocket(ledger, site.node("clinic"))
        owner.register("daemon.slow", slow)
        owner.start()
        client = OwnerClient(site.node("clinic") / "owner.sock")
        asking = threading.Thread(target=lambda: answers.append(client.ask("daemon.slow", int)))
        asking.start()
        assert began.wait(10)
        closing = threading.Thread(target=owner.close)
        closing.start()
        until(lambda: not (site.node("clinic") / "owner.sock").exists())
        go_on.set()
        for thread in (closing, asking):
            thread.join(10)
            assert not thread.is_alive()
        client.close()
    assert answers == [7]


def test_without_an_owner_a_call_says_that_nothing_was_written(site: Site) -> None:
    with site.open("clinic") as ledger:
        owner = OwnerSocket(ledger, site.node("clinic"))
        owner.start()
        shared = connect_or_open(site.node("clinic"), site.unlock)
        owner.close()
        with pytest.raises(OwnerGone):
            shared.prescribe(order(), person=DOCTOR, command=b"\x0b" * 16)
        assert ledger.node.first_result(b"\x0b" * 16) is None
        # It comes back when an owner does, without being opened anew.
        with OwnerSocket(ledger, site.node("clinic")):
            assert not shared.prescribe(order(), person=DOCTOR, command=b"\x0b" * 16).repeated
        shared.close()


def test_an_owner_that_dies_in_a_call_leaves_the_outcome_open_and_the_command_id_known(
    tmp_path: Path,
) -> None:
    """For commands that were given an id, and for those that were not."""
    path = tmp_path / "owner.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def die() -> None:
        for _ in range(3):
            sock, _ = listener.accept()
            with sock:
                read_frame(sock, idle_s=10)
                write_frame(sock, Welcome(1, 1, bytes(16), bytes(16)))
                read_frame(sock, idle_s=10)

    dying = threading.Thread(target=die)
    dying.start()
    client = OwnerClient(path)
    with listener:
        prescribe, show = methods()["ledger.prescribe"], methods()["ledger.show"]
        with pytest.raises(OutcomeUnknown) as unknown:
            client.call(prescribe, {"order": order(), "person": DOCTOR, "command": COMMAND})
        assert unknown.value.command == COMMAND
        with pytest.raises(OutcomeUnknown) as unknown:
            client.call(prescribe, {"order": order(), "person": DOCTOR})
        assert unknown.value.command is not None
        assert len(unknown.value.command) == 16
        with pytest.raises(OwnerGone):  # A question may be asked again without a thought.
            client.call(show, {"document": bytes(16)})
        dying.join(10)
    client.close()


def test_another_nodes_process_is_not_taken_for_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "owner.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def answer() -> None:
        for number in range(2):
            sock, _ = listener.accept()
            with sock:
                read_frame(sock, idle_s=10)
                write_frame(sock, Welcome(1, 1, bytes([number]) * 16, bytes(16)))

    answering = threading.Thread(target=answer)
    answering.start()
    client = OwnerClient(path)
    with listener:
        assert client.connect()
        assert client.node == NodeId(bytes(16))
        client.close()
        with pytest.raises(OtherRealm):
            client.connect()
        answering.join(10)


def test_an_answer_to_another_question_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "owner.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def answer() -> None:
        sock, _ = listener.accept()
        with sock:
            read_frame(sock, idle_s=10)
            write_frame(sock, Welcome(1, 1, bytes(16), bytes(16)))
            read_frame(sock, idle_s=10)
            write_frame(sock, Reply(99, Outcome.RESULT, msgspec.Raw(b"\x01")))

    answering = threading.Thread(target=answer)
    answering.start()
    client = OwnerClient(path)
    with listener, pytest.raises(OwnerGone):
        client.call(methods()["ledger.today"], {})
    answering.join(10)


# --- opening ---------------------------------------------------------------------------------------------------------------


def test_where_nobody_owns_the_store_it_is_opened(site: Site) -> None:
    with connect_or_open(site.node("clinic"), site.unlock) as ledger:
        assert not isinstance(ledger, SharedLedger)
        assert ledger.node.store.writable
        with pytest.raises(StoreBusy):
            connect_or_open(site.node("clinic"), site.unlock, wait_s=0.1)


def test_an_owner_that_is_about_to_listen_is_waited_for(site: Site) -> None:
    with site.open("clinic") as ledger:
        owner = OwnerSocket(ledger, site.node("clinic"))
        tries = 0

        def pause(_: float) -> None:
            nonlocal tries
            tries += 1
            if tries == 2:
                owner.start()

        with connect_or_open(site.node("clinic"), site.unlock, pause=pause) as shared:
            assert isinstance(shared, SharedLedger)
        owner.close()
    assert tries == 2


def test_a_pharmacy_dispenses_through_its_owner(site: Site) -> None:
    """Refusals of the guard with their reasons, and one effect of one command."""
    from nodes.inprocess import synchronise

    with site.open("clinic") as clinic, site.open("pharmacy") as pharmacy:
        document = clinic.prescribe(
            order(chosen_pharmacy=pharmacy.node.identity.node), person=DOCTOR
        ).document
        synchronise(clinic.exchange, pharmacy.exchange)
        with (
            OwnerSocket(pharmacy, site.node("pharmacy")),
            connect_or_open(site.node("pharmacy"), site.unlock) as till,
        ):
            given = till.dispense(document, Supply(fill=1), person=PHARMACIST, command=COMMAND)
            assert (
                till.dispense(document, Supply(fill=1), person=PHARMACIST, command=COMMAND).link == given.link
            )
            with pytest.raises(NotPermitted) as refused:
                till.dispense(document, Supply(fill=1), person=PHARMACIST)
            assert refused.value.reasons
            assert till.show(document).prescription.balance.dispensed == 100
            till.transfer(document, [2], clinic.node.identity.node, person=PHARMACIST)
            assert till.plan_custody.__name__ == "plan_custody"
