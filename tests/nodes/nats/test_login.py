"""A node and a server of one realm know each other: by certificate the one, by key the other, by no clock."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nats.errors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import NodeRole
from ledger.certificates import issue_server
from ledger.errors import InvalidInput, Malformed, NotPermitted, PeerFault
from ledger.identity import NodeKeys, verify_chain
from nodes.nats.certificates import certificates_pem, client_tls, private_key_pem
from nodes.nats.nkeys import Login, user_nkey
from nodes.nats.server import LocalServer, ServerFailed
from tests.ledger.realm_for_tests import NOW_MS, STOCKHOLM, RealmForTests
from tests.nodes.nats.realm_on_disk import RealmOnDisk, connected, login_of

CONFIG = """
listen: "127.0.0.1:-1"
tls {{ cert_file: server.pem, key_file: server.key, min_version: "1.3" }}
authorization {{ users: [ {users} ] }}
"""
REFUSED = (OSError, ssl.SSLError, nats.errors.Error, asyncio.TimeoutError)


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[RealmOnDisk]:
    made = RealmOnDisk(tmp_path / "one")
    yield made
    made.close()


def serve(folder: Path, *logins: Login) -> LocalServer:
    return LocalServer(CONFIG.format(users=", ".join(f"{{ nkey: {x.user} }}" for x in logins)), folder)


# --- the name of a key ------------------------------------------------------------------------------------------------


def test_the_user_name_of_a_key_is_the_one_that_nats_documents() -> None:
    """The pair in the documentation of NATS: the key in its seed, and the user's name."""
    documented = base64.b32decode("SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY" + "=" * 6)
    login = Login(Ed25519PrivateKey.from_private_bytes(documented[2:34]))
    assert login.user == "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
    assert login.user not in repr(login)
    with pytest.raises(InvalidInput):
        user_nkey(bytes(31))


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "short",
        "rxledger/1 sign link",
        "rxledger/1 sign opening\0" + "x" * 15,
        "Å" * 15,
        "x" * 65,
        "abcdefghijklmno\n",
    ],
)
def test_nothing_but_a_nonce_is_signed(asked: str) -> None:
    """The key also signs entries: a hostile server must get no signature that could stand under one."""
    with pytest.raises(Malformed, match="no nonce"):
        Login(NodeKeys.from_bytes(bytes(64)).signing).sign(asked)


# --- certificates of servers ------------------------------------------------------------------------------------------


def issue(
    realm: RealmForTests, name: str = "hub-north", addresses: tuple[str, ...] = ("hub.example",)
) -> tuple[bytes, ...]:
    return issue_server(
        realm.issuing.signing, realm.issuing_chain, realm.keys().public_key, name, addresses, NOW_MS,
        entropy=realm.entropy,
    )  # fmt: skip


def test_a_server_is_not_a_node() -> None:
    realm = RealmForTests()
    with pytest.raises(PeerFault):
        verify_chain(realm.realm, issue(realm))


def test_a_server_is_certified_for_its_addresses_only() -> None:
    realm = RealmForTests()
    chain = issue(realm, addresses=("hub.example", "192.0.2.7", "2001:db8::1", "hub.example"))
    names = (
        x509.load_der_x509_certificate(chain[0])
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    assert names.get_values_for_type(x509.DNSName) == ["hub.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "2001:db8::1"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:rxledger:server:hub-north"]


@pytest.mark.parametrize("name", ["", "Hub", "-hub", "hub-", "hub.north", "h" * 33, "hub north", "hub\n"])
def test_a_bad_name_of_a_server_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="name of a server"):
        issue(RealmForTests(), name)


@pytest.mark.parametrize(
    "address", ["", "*.example", "a b", "-x.example", "1.2.3.256", "x" * 64, "hub.example\n", "å.example"]
)
def test_a_bad_address_of_a_server_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match="neither a host name"):
        issue(RealmForTests(), addresses=(address,))


def test_a_server_has_an_address_and_not_too_many() -> None:
    for count in (0, 17):
        with pytest.raises(InvalidInput, match="1 to 16"):
            issue(RealmForTests(), addresses=tuple(f"h{n}.example" for n in range(count)))
    assert len(issue(RealmForTests(), addresses=tuple(f"h{n}.example" for n in range(16)))[0]) <= 2048


def test_a_district_authority_certifies_no_servers() -> None:
    realm = RealmForTests()
    keys, chain = realm.authority()
    with pytest.raises(NotPermitted, match="issuing key"):
        issue_server(
            keys.signing,
            chain,
            realm.keys().public_key,
            "hub",
            ["hub.example"],
            NOW_MS,
            entropy=realm.entropy,
        )


# --- with a real server -----------------------------------------------------------------------------------------------


def test_a_node_logs_in_with_the_key_of_its_certificate(realm: RealmOnDisk, tmp_path: Path) -> None:
    pharmacy = realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "apotek")
    realm.server_files(tmp_path / "hub")

    async def try_it(url: str) -> None:
        async with connected(url, realm.realm, login_of(pharmacy)) as client:
            heard = await client.subscribe("a")
            await client.publish("a", b"there")
            assert (await heard.next_msg(timeout=5)).data == b"there"

    with serve(tmp_path / "hub", login_of(pharmacy)) as hub:
        asyncio.run(try_it(hub.urls[0]))
        asyncio.run(try_it(hub.urls[0].replace("127.0.0.1", "localhost")))


def test_a_node_that_the_server_does_not_list_is_refused(realm: RealmOnDisk, tmp_path: Path) -> None:
    pharmacy = realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "apotek")
    other = realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "other")
    realm.server_files(tmp_path / "hub")

    async def try_it(url: str, login: Login | None) -> None:
        with pytest.raises(REFUSED):
            async with connected(url, realm.realm, login):
                pass

    class Impostor(Login):
        """Names another's key, signs with its own."""

    impostor = Impostor(other.node.keys.signing)
    impostor.user = login_of(pharmacy).user
    with serve(tmp_path / "hub", login_of(pharmacy)) as hub:
        for login in (login_of(other), None, impostor):
            asyncio.run(try_it(hub.urls[0], login))


def test_a_server_of_another_realm_is_refused_before_anything_is_said(
    realm: RealmOnDisk, tmp_path: Path
) -> None:
    foreign = RealmOnDisk(tmp_path / "two")
    pharmacy = realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "apotek")
    foreign.server_files(tmp_path / "hub")

    async def try_it(url: str) -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connected(url, realm.realm, login_of(pharmacy)):
                pass

    with serve(tmp_path / "hub", login_of(pharmacy)) as hub:
        asyncio.run(try_it(hub.urls[0]))
    foreign.close()


def test_an_expired_certificate_of_a_server_does_not_cut_a_node_off(
    realm: RealmOnDisk, tmp_path: Path
) -> None:
    """No dead end of trust: nobody may be at hand to issue a new one."""
    pharmacy = realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "apotek")
    realm.server_files(tmp_path / "hub", days=10, age_days=100)

    async def try_it(url: str) -> None:
        async with connected(url, realm.realm, login_of(pharmacy)) as client:
            assert client.is_connected

    with serve(tmp_path / "hub", login_of(pharmacy)) as hub:
        asyncio.run(try_it(hub.urls[0]))
        strict = client_tls(realm.realm)
        strict.verify_flags = ssl.VerifyFlags.VERIFY_DEFAULT
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            asyncio.run(greet(hub, strict))


async def greet(hub: LocalServer, context: ssl.SSLContext) -> None:
    """As a client would begin."""
    at = urlsplit(hub.urls[0])
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    await reader.readline()
    try:
        await writer.start_tls(context, server_hostname="localhost")
    finally:
        writer.transport.abort()


def test_a_node_cannot_pose_as_a_server(realm: RealmOnDisk, tmp_path: Path) -> None:
    """Its certificate is good for TLS on either side and may carry any name, but no address."""
    pharmacy = realm.enrol(NodeRole.PHARMACY, STOCKHOLM, "localhost")
    identity, keys = pharmacy.node.identity, pharmacy.node.keys
    (tmp_path / "chain.pem").write_bytes(certificates_pem(identity.certificates))
    (tmp_path / "key.pem").write_bytes(private_key_pem(keys.signing))
    posing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    posing.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")

    async def try_it() -> None:
        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(serve_one, "127.0.0.1", 0, ssl=posing) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname mismatch|not valid for"):
                await asyncio.open_connection("localhost", port, ssl=client_tls(realm.realm))

    asyncio.run(try_it())


def test_servers_in_go_cannot_read_the_certificate_of_a_node(realm: RealmOnDisk, tmp_path: Path) -> None:
    """Why nodes log in with keys (docs/adr/0009). When this fails, certificates of nodes have become usable there."""
    realm.server_files(tmp_path / "hub")
    (tmp_path / "hub" / "ca.pem").write_bytes(certificates_pem((realm.realm.root_certificate,)))
    config = CONFIG.format(users="").replace("key_file:", "ca_file: ca.pem, verify: true, key_file:")
    with pytest.raises(ServerFailed, match="failed to parse root ca certificate"):
        LocalServer(config, tmp_path / "hub").start()


def test_certificates_as_text_are_those_that_went_in() -> None:
    realm = RealmForTests()
    chain = realm.chain(realm.keys(), NodeRole.PHARMACY, STOCKHOLM)
    loaded = x509.load_pem_x509_certificates(certificates_pem(chain))
    assert len(loaded) == len(chain)
