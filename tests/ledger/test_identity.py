"""Identity: who is believed, who is not, and that no clock and no server is asked."""

from __future__ import annotations

import ssl
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.certificates import create_issuing, create_root, issue_node
from ledger.entropy import SeededEntropy, SystemEntropy
from ledger.errors import InvalidInput, LimitExceeded, Malformed, NotAuthentic, NotPermitted, PeerFault
from ledger.identity import (
    CERTIFICATE_BYTES_MAX,
    NodeKeys,
    NodeRole,
    Realm,
    RealmKind,
    is_expired,
    load_certificate,
    may_not_certify,
    verify_chain,
)
from ledger.ids import node_id, realm_id
from tests.ledger.realm_for_tests import DAY_MS, NOW_MS, STOCKHOLM, UPPSALA, RealmForTests

R = NodeRole
HOME = {role: "" if role is R.AGENCY else STOCKHOLM for role in R}


@pytest.fixture(scope="module")
def world() -> RealmForTests:
    return RealmForTests()


# --- a good chain -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(R))
def test_the_agency_certifies_every_role(world, role):
    keys = world.keys()
    certified = verify_chain(world.realm, world.chain(keys, role, HOME[role], "Apoteket Björken"))
    assert (certified.role, certified.district, certified.name) == (role, HOME[role], "Apoteket Björken")
    assert (certified.public_key, certified.wrapping_key) == (keys.public_key, keys.wrapping_key)
    assert certified.node == node_id(world.realm.id, keys.public_key)
    assert certified.admitted_by is None


@pytest.mark.parametrize("role", [R.PRESCRIBER, R.PHARMACY, R.RELAY])
def test_an_authority_admits_a_node_when_the_agency_is_gone(world, role):
    """It takes the authority's keys and chain, and nothing else: no dead end of trust."""
    authority, chain = world.authority()
    keys = world.keys()
    certified = verify_chain(world.realm, world.chain(keys, role, STOCKHOLM, by=(authority, chain)))
    assert certified.role is role
    assert certified.admitted_by == verify_chain(world.realm, chain).node


def test_realm_says_who_it_is(world):
    realm = Realm.from_certificate(world.realm.root_certificate)
    assert realm == world.realm
    assert (realm.name, realm.kind, realm.root_key) == (
        "Övningsriket",
        RealmKind.EXERCISE,
        world.root.public_key,
    )
    assert realm.id == realm_id(world.root.public_key)


def test_certificates_are_the_same_bytes_for_the_same_time_and_entropy():
    first, second = RealmForTests(7), RealmForTests(7)
    keys = NodeKeys.generate(SeededEntropy(8))
    assert first.chain(keys, R.PHARMACY, STOCKHOLM) == second.chain(keys, R.PHARMACY, STOCKHOLM)


def test_a_chain_fits_an_opening_with_room_to_spare(world):
    by = world.authority()
    chain = world.chain(world.keys(), R.PHARMACY, STOCKHOLM, "Å" * 32, by=by)
    assert max(map(len, chain)) <= 700


# --- dates ----------------------------------------------------------------------------------------------------


def test_an_expired_certificate_stays_good_and_is_marked(world):
    certified = verify_chain(world.realm, world.chain(world.keys(), R.PHARMACY, STOCKHOLM, days=1))
    assert not is_expired(certified, NOW_MS)
    assert is_expired(certified, NOW_MS + 2 * DAY_MS)
    assert is_expired(certified, NOW_MS - 30 * DAY_MS), "not yet valid is marked too"


def test_a_node_is_marked_when_its_authority_has_expired(world):
    authority = world.keys()
    short = world.chain(authority, R.AUTHORITY, STOCKHOLM, days=1)
    certified = verify_chain(
        world.realm, world.chain(world.keys(), R.PHARMACY, STOCKHOLM, by=(authority, short), days=700)
    )
    assert is_expired(certified, NOW_MS + 2 * DAY_MS)


def test_verifying_asks_no_clock(world):
    """A realm of the year 1990 verifies today."""
    entropy, then = SeededEntropy(3), 631_152_000_000
    root, issuing, node = (NodeKeys.generate(entropy) for _ in range(3))
    der = create_root(root.signing, "Förr", RealmKind.EXERCISE, then, entropy=entropy)
    chain = issue_node(
        issuing.signing, create_issuing(root.signing, der, issuing.public_key, then, entropy=entropy),
        node.public_key, node.wrapping_key, R.PHARMACY, STOCKHOLM, "Apotek", then, days=1, entropy=entropy,
    )  # fmt: skip
    assert is_expired(verify_chain(Realm.from_certificate(der), chain), NOW_MS)


# --- role matrix ----------------------------------------------------------------------------------------------

AUTHORITY_MAY = {R.PRESCRIBER, R.PHARMACY, R.RELAY}


@pytest.mark.parametrize("issuer", [None, *R])
@pytest.mark.parametrize("role", list(R))
@pytest.mark.parametrize("district", ["", STOCKHOLM, UPPSALA])
def test_role_matrix(issuer, role, district):
    """Who may certify whom, and for which district."""
    has_home = district == "" if role is R.AGENCY else (bool(district) or role is R.RELAY)
    allowed = has_home and (
        issuer is None or (issuer is R.AUTHORITY and role in AUTHORITY_MAY and district == STOCKHOLM)
    )
    assert (may_not_certify(issuer, STOCKHOLM, role, district) == "") is allowed


@pytest.mark.parametrize("district", ["governance", "a b", "SE/AB", "a.b", "a*", "-x", "å", "x" * 65, "a\n"])
def test_a_home_district_has_a_plain_name_and_is_not_governance(district):
    assert may_not_certify(None, "", R.PHARMACY, district)


@pytest.mark.parametrize("role", [R.AGENCY, R.AUTHORITY])
def test_an_authority_is_refused_before_it_certifies_what_it_may_not(world, role):
    with pytest.raises(NotPermitted):
        world.chain(world.keys(), role, HOME[role], by=world.authority())


def test_an_authority_is_refused_before_it_certifies_for_another_district(world):
    with pytest.raises(NotPermitted):
        world.chain(world.keys(), R.PHARMACY, UPPSALA, by=world.authority(STOCKHOLM))


@pytest.mark.parametrize("issuer_role", [R.PHARMACY, R.PRESCRIBER, R.RELAY, R.AGENCY])
def test_no_other_role_certifies(world, issuer_role):
    keys = world.keys()
    with pytest.raises(NotPermitted):
        world.chain(
            world.keys(), R.PHARMACY, STOCKHOLM, by=(keys, world.chain(keys, issuer_role, HOME[issuer_role]))
        )


def forge(
    signer: NodeKeys,
    issuer_der: bytes,
    template: bytes,
    keys: NodeKeys,
    *,
    drop: tuple[str, ...] = (),
    add=(),
) -> bytes:
    """The template's certificate for other keys, signed by whoever, with extensions taken away or put in."""
    old, issuer = x509.load_der_x509_certificate(template), x509.load_der_x509_certificate(issuer_der)
    builder = x509.CertificateBuilder(
        issuer_name=issuer.subject,
        subject_name=old.subject,
        public_key=Ed25519PublicKey.from_public_bytes(keys.public_key),
        serial_number=old.serial_number,
        not_valid_before=old.not_valid_before_utc,
        not_valid_after=old.not_valid_after_utc,
    )
    for extension in old.extensions:
        if extension.oid.dotted_string not in drop:
            builder = builder.add_extension(extension.value, extension.critical)
    for value, critical in add:
        builder = builder.add_extension(value, critical)
    return builder.sign(signer.signing, algorithm=None).public_bytes(Encoding.DER)


BASIC, USAGE = x509.BasicConstraints.oid.dotted_string, x509.KeyUsage.oid.dotted_string


@pytest.mark.parametrize("role", [R.AGENCY, R.AUTHORITY, R.PHARMACY])
def test_what_a_cheating_authority_signs_is_refused(world, role):
    """It signs what this library would not: a higher role, or a node of another district."""
    authority, above = world.authority(STOCKHOLM)
    keys = world.keys()
    good = world.chain(keys, role, HOME[role] and UPPSALA)
    forged = forge(authority, above[0], good[0], keys)
    with pytest.raises(NotAuthentic):
        verify_chain(world.realm, (forged, *above))


def test_what_a_pharmacy_signs_is_refused(world):
    pharmacy, keys = world.keys(), world.keys()
    above = world.chain(pharmacy, R.PHARMACY, STOCKHOLM)
    good = world.chain(keys, R.PHARMACY, STOCKHOLM)
    with pytest.raises(NotAuthentic):
        verify_chain(world.realm, (forge(pharmacy, above[0], good[0], keys), *above))


def test_a_pharmacy_whose_certificate_lets_it_certify_is_refused(world):
    keys = world.keys()
    good = world.chain(keys, R.PHARMACY, STOCKHOLM)
    ca = (x509.BasicConstraints(ca=True, path_length=0), True)
    forged = forge(world.issuing, world.issuing_chain[0], good[0], keys, drop=(BASIC,), add=(ca,))
    with pytest.raises(NotAuthentic):
        verify_chain(world.realm, (forged, *world.issuing_chain))


@pytest.mark.parametrize("missing", [BASIC, USAGE])
def test_an_authority_without_constraints_or_usage_certifies_nobody(world, missing):
    authority, above = world.authority()
    weak = forge(world.issuing, world.issuing_chain[0], above[0], authority, drop=(missing,))
    keys = world.keys()
    node = world.chain(keys, R.PHARMACY, STOCKHOLM, by=(authority, above))[0]
    with pytest.raises(NotAuthentic):
        verify_chain(world.realm, (node, weak, *world.issuing_chain))


def usage(*, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, certify, False, False, False)


@pytest.mark.parametrize(
    ("missing", "instead"),
    [
        (BASIC, ()),
        (USAGE, ()),
        (BASIC, ((x509.BasicConstraints(ca=False, path_length=None), True),)),
        (BASIC, ((x509.BasicConstraints(ca=True, path_length=0), True),)),
        (USAGE, ((usage(certify=False), True),)),
    ],
)
def test_an_issuing_certificate_that_may_not_certify_so_deep_is_refused(world, missing, instead):
    authority, above = world.authority()
    chain = world.chain(world.keys(), R.PHARMACY, STOCKHOLM, by=(authority, above))
    weak = forge(
        world.root, world.realm.root_certificate, above[-1], world.issuing, drop=(missing,), add=instead
    )
    with pytest.raises(NotAuthentic):
        verify_chain(world.realm, (*chain[:-1], weak))


def test_a_root_that_may_not_certify_founds_no_realm(world):
    root = world.realm.root_certificate
    for drop, instead in ((BASIC, ()), (USAGE, ((usage(certify=False), True),))):
        with pytest.raises(NotAuthentic):
            Realm.from_certificate(forge(world.root, root, root, world.root, drop=(drop,), add=instead))


def test_a_certificate_that_names_another_issuer_is_refused(world):
    """Rightly signed, but by a key whose certificate has another name: chains have one reading."""
    keys, (_, other) = world.keys(), world.authority()
    good = world.chain(keys, R.PHARMACY, STOCKHOLM)
    with pytest.raises(NotAuthentic):
        verify_chain(world.realm, (forge(world.issuing, other[0], good[0], keys), *world.issuing_chain))


def test_an_unknown_critical_extension_is_refused(world):
    keys = world.keys()
    odd = (x509.UnrecognizedExtension(x509.ObjectIdentifier("2.25.99"), b"\x05\0"), True)
    good = world.chain(keys, R.PHARMACY, STOCKHOLM)
    forged = forge(world.issuing, world.issuing_chain[0], good[0], keys, add=(odd,))
    with pytest.raises(Malformed):
        verify_chain(world.realm, (forged, *world.issuing_chain))


def test_a_node_certified_by_the_root_itself_is_refused(world):
    """An authority signed by the root would stand where only the issuing certificate may."""
    authority, above = world.authority()
    promoted = forge(world.root, world.realm.root_certificate, above[0], authority)
    keys = world.keys()
    agency = forge(authority, promoted, world.chain(keys, R.AGENCY, "")[0], keys)
    with pytest.raises(NotAuthentic):
        verify_chain(world.realm, (agency, promoted))


# --- wrong signer, wrong realm, wrong order -------------------------------------------------------------------


def test_another_realms_chain_is_refused(world):
    other = RealmForTests(2)
    with pytest.raises(NotAuthentic):
        verify_chain(world.realm, other.chain(other.keys(), R.PHARMACY, STOCKHOLM))


def test_a_realm_of_the_same_name_is_another_realm(world):
    """Names prove nothing: the same names under another root key are refused."""
    other = RealmForTests(2)
    keys = world.keys()
    forged = forge(other.issuing, world.issuing_chain[0], world.chain(keys, R.PHARMACY, STOCKHOLM)[0], keys)
    with pytest.raises(NotAuthentic):
        verify_chain(world.realm, (forged, *world.issuing_chain))


def test_a_cached_chain_is_not_good_in_another_realm(world):
    chain = world.chain(world.keys(), R.PHARMACY, STOCKHOLM)
    assert verify_chain(world.realm, chain) is verify_chain(world.realm, chain), (
        "the second is from the cache"
    )
    with pytest.raises(NotAuthentic):
        verify_chain(RealmForTests(2).realm, chain)


def test_swapped_repeated_and_missing_certificates_are_refused(world):
    authority, above = world.authority()
    node, middle, issuing = world.chain(world.keys(), R.PHARMACY, STOCKHOLM, by=(authority, above))
    for bad in [
        (), (node,), (node, issuing), (node, middle), (middle, node, issuing), (node, issuing, middle),
        (issuing, middle, node), (node, node, issuing), (node, middle, issuing, world.realm.root_certificate),
        (issuing, world.realm.root_certificate), (issuing, issuing),
    ]:  # fmt: skip
        with pytest.raises(PeerFault):
            verify_chain(world.realm, bad)


def test_a_swapped_issuer_of_the_same_district_is_refused(world):
    first, second = world.authority(), world.authority()
    node = world.chain(world.keys(), R.PHARMACY, STOCKHOLM, by=first)[0]
    with pytest.raises(NotAuthentic):
        verify_chain(world.realm, (node, *second[1]))


def test_a_root_that_is_not_one_founds_no_realm(world):
    for der in (
        world.issuing_chain[0],
        world.chain(world.keys(), R.PHARMACY, STOCKHOLM)[0],
        b"",
        b"\x30\x00",
    ):
        with pytest.raises(PeerFault):
            Realm.from_certificate(der)


def test_other_algorithms_are_refused():
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "x")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    der = (
        x509.CertificateBuilder(name, name, key.public_key(), 5, now, now + timedelta(days=1))
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )
    with pytest.raises(NotAuthentic):
        load_certificate(der)


# --- hostile bytes --------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_certificate_is_refused(world):
    """One bit in each byte of node's and authority's certificate: a typed error, never another identity."""
    chain = world.chain(world.keys(), R.PHARMACY, STOCKHOLM, by=world.authority())
    for which in (0, 1):
        der = chain[which]
        for index in range(len(der)):
            bad = der[:index] + bytes([der[index] ^ (1 << index % 8)]) + der[index + 1 :]
            with pytest.raises(PeerFault):
                verify_chain(world.realm, (*chain[:which], bad, *chain[which + 1 :]))


def test_a_signature_with_unused_bits_is_refused():
    """Anyone could write a certificate in a second form: the bits are zero, and how many count is not signed."""
    tried = 0
    for seed in range(20):
        world = RealmForTests(seed)
        chain = world.chain(world.keys(), R.PHARMACY, STOCKHOLM)
        der = chain[0]
        if der[-1] & 1:
            continue
        tried += 1
        assert der[-65] == 0
        with pytest.raises(Malformed):
            verify_chain(world.realm, (der[:-65] + b"\1" + der[-64:], chain[1]))
    assert tried


def test_truncated_and_lengthened_certificates_are_refused(world):
    chain = world.chain(world.keys(), R.PHARMACY, STOCKHOLM)
    for bad in [*(chain[0][:n] for n in range(0, len(chain[0]), 7)), chain[0] + b"\0"]:
        with pytest.raises(PeerFault):
            verify_chain(world.realm, (bad, chain[1]))


def test_a_certificate_beyond_the_limit_is_refused_before_it_is_parsed():
    with pytest.raises(LimitExceeded):
        load_certificate(bytes(CERTIFICATE_BYTES_MAX + 1))


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_noise_is_malformed(data):
    with pytest.raises(PeerFault):
        load_certificate(data)


def test_names_that_would_forge_a_log_line_are_refused(world):
    for name in ("", "x" * 65, "å" * 33, "\ud800", "a\nb", "\x1b[2J", " a", "a\u202eb"):
        with pytest.raises(InvalidInput):
            world.chain(world.keys(), R.PHARMACY, STOCKHOLM, name)


def test_impossible_times_and_days_are_refused(world):
    keys, entropy = world.keys(), SeededEntropy(1)
    for now_ms, days in ((10**17, 1), (-(10**16), 1), (NOW_MS, 0), (NOW_MS, 10**6)):
        with pytest.raises(InvalidInput):
            issue_node(
                world.issuing.signing, world.issuing_chain, keys.public_key, keys.wrapping_key, R.PHARMACY,
                STOCKHOLM, "Apotek", now_ms, days=days, entropy=entropy,
            )  # fmt: skip


def test_a_key_that_is_not_the_issuers_certifies_nothing(world):
    with pytest.raises(InvalidInput):
        world.chain(world.keys(), R.PHARMACY, STOCKHOLM, by=(world.keys(), world.issuing_chain))
    with pytest.raises(InvalidInput):
        create_issuing(
            world.keys().signing, world.realm.root_certificate, world.keys().public_key, NOW_MS,
            entropy=SeededEntropy(1),
        )  # fmt: skip


def test_many_threads_verify_at_once(world):
    chains = [world.chain(world.keys(), R.PHARMACY, STOCKHOLM) for _ in range(20)]
    found: list[bytes] = []

    def verify() -> None:
        found.extend(verify_chain(world.realm, chain).node for chain in chains)

    threads = [threading.Thread(target=verify) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert len(set(found)) == 20


# --- keys -----------------------------------------------------------------------------------------------------


def test_keys_survive_their_bytes_and_show_nothing():
    keys = NodeKeys.generate(SystemEntropy())
    again = NodeKeys.from_bytes(keys.to_bytes())
    assert (again.public_key, again.wrapping_key) == (keys.public_key, keys.wrapping_key)
    shown = repr(keys) + str(keys)
    assert keys.to_bytes()[:32].hex()[:16] not in shown
    assert keys.to_bytes()[32:].hex()[:16] not in shown


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_keys_of_another_length_are_malformed(length):
    with pytest.raises(Malformed):
        NodeKeys.from_bytes(bytes(length))


def test_seeded_entropy_repeats_and_never_repeats_itself():
    one, two = SeededEntropy(5), SeededEntropy(5)
    drawn = [one.bytes(n) for n in (16, 1, 64, 0, 33)]
    assert drawn == [two.bytes(n) for n in (16, 1, 64, 0, 33)]
    assert [len(d) for d in drawn] == [16, 1, 64, 0, 33]
    assert one.bytes(32) != one.bytes(32)
    assert SeededEntropy(b"a").bytes(8) != SeededEntropy(b"b").bytes(8)


# --- TLS ------------------------------------------------------------------------------------------------------


def test_certificates_serve_both_sides_of_tls(world, tmp_path: Path):
    """Under the strict checks that are the default from Python 3.13, and whatever the date is."""
    no_check_time = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: an expired certificate stays usable here too.
    contexts = []
    for index, side in enumerate((ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)):
        keys = world.keys()
        chain = world.chain(keys, R.PHARMACY, STOCKHOLM, by=world.authority() if index else None, days=1)
        pem = b"".join(x509.load_der_x509_certificate(c).public_bytes(Encoding.PEM) for c in chain)
        secret = keys.signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = tmp_path / f"{index}.pem"
        path.write_bytes(secret + pem)
        context = ssl.SSLContext(side)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_STRICT | no_check_time)
        context.load_cert_chain(path)
        root = x509.load_der_x509_certificate(world.realm.root_certificate)
        context.load_verify_locations(cadata=root.public_bytes(Encoding.PEM).decode())
        contexts.append(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = contexts[0].wrap_bio(to_server, to_client, server_side=True)
    client = contexts[1].wrap_bio(to_client, to_server)
    done: set[int] = set()
    for _ in range(10):
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(id(side))
            except ssl.SSLWantReadError:
                continue
    assert len(done) == 2, sys.version
