"""Folders of servers: made again without harm, from the ledger alone, and never worse than they were."""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from ledger import Ledger, NodeRole
from ledger.clock import SystemClock
from ledger.enrolment import make_request, open_package
from ledger.entropy import SystemEntropy
from ledger.errors import InvalidInput, NotFound, OtherRealm, StoreDamaged
from ledger.identity import NodeKeys
from ledger.ids import NodeId
from nodes.inprocess import synchronise
from nodes.nats import folders as module
from nodes.nats.description import read_description
from nodes.nats.folders import find_folders, prepare_run, write_users
from nodes.nats.nkeys import user_nkey
from nodes.nats.roster import Member, Roster, read_roster
from nodes.nats.server import check_config
from nodes.nats.subjects import live, permissions
from nodes.nats.topology import PAYLOAD_BYTES_MAX, Files, listed_users, render, users_in
from tests.ledger.realm_for_tests import RealmForTests
from tests.nodes.nats.network_on_disk import NetworkOnDisk, ported
from tests.nodes.nats.realm_on_disk import OFFICER, STOCKHOLM, UPPSALA, RealmOnDisk, login_of

DAY_MS = 86_400_000


class Fixture:
    def __init__(self, directory: Path) -> None:
        self.realm = RealmOnDisk(directory)
        self.north = self.realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "north")
        self.south = self.realm.enrol(NodeRole.PRESCRIBER, UPPSALA, "south")
        self.relay = self.realm.enrol(NodeRole.RELAY, "", "relay")
        self.net = NetworkOnDisk(
            self.realm,
            [
                ported("n1", "national"),
                ported("n2", "national"),
                ported("hub-north", "hub", districts=[STOCKHOLM]),
                ported("hub-south", "hub", districts=[UPPSALA]),
                ported("site", "site", hubs=["hub-north", "hub-south"], nodes=[ident(self.north)]),
            ],
        )

    def folder(self, name: str) -> Path:
        return self.net.directory / name


def ident(ledger: Ledger) -> str:
    return ledger.node.identity.node.hex()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(tmp_path / "made")
    yield fixture
    fixture.realm.close()


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()
    }


def users(made: Fixture, name: str) -> set[str]:
    return set(users_in((made.folder(name) / "users.conf").read_text()))


# --- what stands in them ----------------------------------------------------------------------------------------------


def test_each_folder_is_whole_private_and_accepted_by_the_server(made: Fixture) -> None:
    for folder in find_folders(made.net.directory):
        assert {p.name for p in folder.iterdir()} == {
            "nats.conf", "users.conf", "network.toml", "server.pem", "server.key", "ca.pem", "operator.key",
        }  # fmt: skip
        assert check_config(folder / "nats.conf").startswith("sha256:")
        for file in folder.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [f.name for f in find_folders(made.net.directory)] == [
        "hub-north",
        "hub-south",
        "n1",
        "n2",
        "site",
    ]
    assert find_folders(made.folder("site")) == [made.folder("site")]


def test_a_server_lists_those_who_have_business_there(made: Fixture) -> None:
    north, south, relay, agency = (
        login_of(ledger).user for ledger in (made.north, made.south, made.relay, made.realm.founded.agency)
    )
    uri = "urn:rxledger:server:"
    everybody = {north, south, relay, agency}
    assert users(made, "n1") == users(made, "n2") == everybody | {uri + "hub-north", uri + "hub-south"}
    assert users(made, "hub-north") == {north, relay, agency, uri + "site"}
    assert users(made, "hub-south") == {south, relay, agency, uri + "site"}
    assert users(made, "site") == {north, relay, agency}


def test_no_name_of_a_node_stands_in_a_configuration(made: Fixture) -> None:
    for path, data in contents(made.net.directory).items():
        if path.endswith((".conf", ".pem")):
            for name in (
                b"vning",
                *(ledger.node.identity.name.encode() for ledger in (made.relay, made.south)),
            ):
                assert name not in re.sub(rb"hub-(north|south)", b"", data), path


def test_no_realm_word_or_payload_smaller_than_a_message_is_written(made: Fixture) -> None:
    text = (made.folder("n1") / "nats.conf").read_text()
    assert f"max_payload: {PAYLOAD_BYTES_MAX}" in text
    for setting in (
        'write_deadline: "20s"', 'ping_interval: "10s"', "ping_max: 2", "authorization { timeout: 45 }",
        'http: "127.0.0.1:', 'min_version: "1.3"', "pinned_certs",
    ):  # fmt: skip
        assert setting in text
    text = (made.folder("site") / "nats.conf").read_text()
    assert text.count("urls:") == 1
    assert 'first_info_timeout: "30s"' in text
    assert "compression: s2_best" in text
    assert "listen: " not in text.partition("leafnodes")[2]


def test_ipv6_addresses_stand_in_brackets(made: Fixture, tmp_path: Path) -> None:
    path = tmp_path / "six.toml"
    path.write_text('[[hub]]\nname = "hub"\naddress = "2001:db8::1"\nbind = "::1"\n')
    text = render(
        read_description(path),
        read_description(path).hub[0],
        made.net.roster(),
        made.realm.realm.id,
        login_of(made.north).user,
        (),
    ).config
    assert 'listen: "[::1]:4222"' in text
    assert 'advertise: "[2001:db8::1]:7422"' in text


def test_a_whole_country_is_accepted(tmp_path: Path) -> None:
    """1,400 pharmacies and 4,000 care units: the largest list there is, at a server of the national cluster."""
    realm = RealmForTests().realm
    members = tuple(
        Member(
            node=NodeId(number.to_bytes(16, "big")),
            role=NodeRole.PHARMACY if number < 1400 else NodeRole.PRESCRIBER,
            user=user_nkey(NodeKeys.from_bytes(number.to_bytes(64, "little")).public_key),
            districts=(f"SE-AB-{number % 290:04d}",),
        )
        for number in range(5400)
    )
    path = tmp_path / "network.toml"
    path.write_text(
        '[[national]]\nname = "n1"\naddress = "n1.example"\n'
        + "".join(
            f'[[hub]]\nname = "hub-{n}"\naddress = "hub-{n}.example"\ndistricts = {[f"SE-AB-{d:04d}" for d in range(n, 290, 21)]}\n'
            for n in range(21)
        ).replace("'", '"')
    )
    description = read_description(path)
    made = render(
        description,
        description.national[0],
        Roster(members=members, revoked=(), lapsed=()),
        realm.id,
        user_nkey(NodeKeys.from_bytes(b"\xff" * 64).public_key),
        ["00" * 32],
    )
    assert len(users_in(made.users)) == 5421
    assert len(made.users) < 4 * 1024 * 1024
    (tmp_path / "users.conf").write_text(made.users)
    (tmp_path / "bare.conf").write_text('listen: "127.0.0.1:-1"\ninclude users.conf\n')
    check_config(tmp_path / "bare.conf")


# --- made again ---------------------------------------------------------------------------------------------------------


def test_making_them_again_changes_nothing(made: Fixture) -> None:
    before = contents(made.net.directory)
    assert not any(folder.changed for folder in made.net.write())
    assert contents(made.net.directory) == before


def test_a_change_of_the_roster_changes_the_users_only(made: Fixture) -> None:
    before = contents(made.net.directory)
    made.realm.revoke(made.south)
    changed = {f.name for f in made.net.write() if f.changed}
    after = contents(made.net.directory)
    assert {path for path in after if after[path] != before[path]} == {
        f"{n}/users.conf" for n in ("n1", "n2", "hub-south")
    }
    assert changed == {"n1", "n2", "hub-south"}
    assert login_of(made.south).user not in users(made, "hub-south")


def certificate(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates((folder / "server.pem").read_bytes())[0]


def test_a_certificate_is_renewed_in_its_last_year_and_for_new_addresses_with_the_same_key(
    made: Fixture,
) -> None:
    folder, now_ms = made.folder("hub-north"), SystemClock().now_ms()
    first, key = certificate(folder), (folder / "server.key").read_bytes()
    left = first.not_valid_after_utc - datetime.fromtimestamp(now_ms / 1000, UTC)
    assert 4 * 365 < left.days < 5 * 365
    year_before_ms = int(first.not_valid_after_utc.timestamp() * 1000) - 365 * DAY_MS
    made.net.write(now_ms=year_before_ms - DAY_MS)
    assert certificate(folder) == first
    made.net.write(now_ms=year_before_ms + DAY_MS)
    second = certificate(folder)
    assert second.not_valid_after_utc > first.not_valid_after_utc
    made.net.file.write_text(
        made.net.file.read_text().replace('["localhost"]', '["localhost", "hub.example"]')
    )
    made.net.description = read_description(made.net.file)
    made.net.write(now_ms=year_before_ms + DAY_MS)
    assert certificate(folder).serial_number != second.serial_number
    assert (folder / "server.key").read_bytes() == key
    # A damaged certificate is made anew; a damaged key is not, since others are bound to it.
    (folder / "server.pem").write_text("nothing")
    made.net.write()
    assert certificate(folder).public_key() == first.public_key()
    (folder / "server.key").write_text("nothing")
    with pytest.raises(StoreDamaged, match=r"server\.key"):
        made.net.write()


def test_what_the_server_would_refuse_replaces_nothing(
    made: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(made.net.directory)
    monkeypatch.setattr(module, "render", lambda *_: Files("nonsense: 1\n", "nothing {"))
    with pytest.raises(InvalidInput, match="nats-server refuses"):
        made.net.write()
    with pytest.raises(InvalidInput, match="nats-server refuses"):
        write_users(made.folder("site"), made.net.roster(), made.realm.realm)
    assert contents(made.net.directory) == before
    assert not list(made.net.directory.rglob("*.new"))


def test_a_folder_works_alone_with_any_nodes_ledger(made: Fixture, tmp_path: Path) -> None:
    """An island admits and revokes: all that it needs lies in the folder and in a ledger."""
    alone = tmp_path / "elsewhere" / "hub-north"
    shutil.copytree(made.folder("hub-north"), alone)
    shutil.rmtree(made.net.directory)
    made.realm.revoke(made.north)
    folder = write_users(
        alone, read_roster(made.realm.founded.agency, SystemClock().now_ms()), made.realm.realm
    )
    assert folder.changed
    assert login_of(made.north).user not in users_in((alone / "users.conf").read_text())
    # The site carried that node only: it has nothing to carry any more.
    assert not any(name.startswith("urn:") for name in users_in((alone / "users.conf").read_text()))
    # What a node knows that has heard of nobody: itself and the agency's acts that it holds.
    assert read_roster(made.south, SystemClock().now_ms()).members[0].user == login_of(made.south).user


def test_a_folder_of_another_realm_is_left_alone(made: Fixture, tmp_path: Path) -> None:
    other = RealmOnDisk(tmp_path / "other")
    before = contents(made.net.directory)
    with pytest.raises(OtherRealm):
        write_users(made.folder("site"), read_roster(other.founded.agency, 0), other.realm)
    assert contents(made.net.directory) == before
    other.close()


def test_what_is_no_folder_is_said_to_be_none(made: Fixture, tmp_path: Path) -> None:
    for act in (find_folders, prepare_run, lambda f: write_users(f, made.net.roster(), made.realm.realm)):
        with pytest.raises(NotFound, match="rxledger nats config"):
            act(tmp_path)


# --- the roster ---------------------------------------------------------------------------------------------------------


def test_who_is_expired_is_marked_then_lapses(made: Fixture) -> None:
    agency = made.realm.founded.agency
    until_ms, grace_days = made.north.node.identity.not_after_ms, agency.policy()[0].certificate_grace_days
    node = made.north.node.identity.node

    def at(now_ms: int) -> tuple[list[bool], bool]:
        roster = read_roster(agency, now_ms)
        return [m.expired for m in roster.members if m.node == node], node in roster.lapsed

    assert at(until_ms) == ([False], False)
    assert at(until_ms + 1) == ([True], False)
    assert at(until_ms + grace_days * DAY_MS) == ([True], False)
    assert at(until_ms + grace_days * DAY_MS + 1) == ([], True)


def test_a_node_with_a_clock_before_its_certificate_is_listed(made: Fixture) -> None:
    assert len(read_roster(made.realm.founded.agency, 0).members) == 4


def test_who_was_admitted_by_a_revoked_authority_is_not_listed(made: Fixture) -> None:
    authority = made.realm.enrol(NodeRole.AUTHORITY, STOCKHOLM, "authority")
    keys = NodeKeys.generate(SystemEntropy())
    package = authority.stewardship.admit(
        make_request(keys, NodeRole.PHARMACY, STOCKHOLM, "late"), person=OFFICER
    )
    late = Ledger.create(made.realm.directory / "late", open_package(package, keys), keys, made.realm.unlock)
    made.realm.nodes.append(late)
    agency, now_ms = made.realm.founded.agency, SystemClock().now_ms()
    who = late.node.identity.node
    assert who not in {m.node for m in read_roster(agency, now_ms).members}
    synchronise(late.exchange, agency.exchange)
    assert who in {m.node for m in read_roster(agency, now_ms).members}
    made.realm.revoke(authority)
    roster = read_roster(agency, now_ms)
    assert {who, authority.node.identity.node} <= set(roster.revoked)
    assert who not in {m.node for m in roster.members}


def test_a_site_with_nobody_left_is_no_user_of_its_hub(made: Fixture) -> None:
    made.realm.revoke(made.north)
    roster = made.net.roster()
    hub = made.net.description.hub[0]
    assert not [
        u
        for u in listed_users(made.net.description, hub, roster, made.realm.realm.id)
        if u.name.startswith("urn:")
    ]


def test_a_site_may_keep_guests_out(made: Fixture) -> None:
    path = made.net.file
    path.write_text(path.read_text().replace("[[site]]", "[[site]]\nguests = false"))
    description = read_description(path)
    listed = listed_users(description, description.site[0], made.net.roster(), made.realm.realm.id)
    assert [user.name for user in listed] == [login_of(made.north).user]


def test_a_site_with_a_relay_carries_all_districts_of_its_hub(made: Fixture) -> None:
    """A relay serves every district; what it may write to is bounded by what its hub serves."""
    path = made.net.file
    path.write_text(path.read_text().replace(ident(made.north), ident(made.relay)))
    description, realm = read_description(path), made.realm.realm.id
    for hub, district in zip(description.hub, (STOCKHOLM, UPPSALA), strict=True):
        [site] = [
            u for u in listed_users(description, hub, made.net.roster(), realm) if u.name.startswith("urn:")
        ]
        assert (
            site.allowed.subscribe
            == permissions(realm, made.relay.node.identity.node, NodeRole.RELAY, ()).subscribe
        )
        assert live(realm, district) in site.allowed.publish
        others = {live(realm, d) for d in (STOCKHOLM, UPPSALA) if d != district}
        assert others.isdisjoint(site.allowed.publish)
        assert not any("*" in subject for subject in site.allowed.publish)
