"""Keys and seals: sealed bytes open under their own key, in their own place, or not at all (R3, R12, R13)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Malformed, NotAuthentic, Unreadable
from ledger.feed import Entry, encode_header
from ledger.ids import GOVERNANCE, district_document, tagged_hash
from ledger.vault import (
    CACHED_DOCUMENT_KEYS_MAX,
    PUBLIC_DISTRICT_KEY,
    EntryKey,
    Keyring,
    document_key,
    entry_key,
    open_local,
    open_sealed,
    patient_index_key,
    seal,
    seal_local,
)

_VECTORS = json.loads((Path(__file__).parent / "golden" / "seal.json").read_text())
GOLDEN, LOCAL = _VECTORS["cases"], _VECTORS["local"]
DISTRICT = "SE-AB-0180"
REALM, FEED, DOCUMENT, OTHER_DOCUMENT = (bytes([n]) * 16 for n in range(1, 5))
KEY, OTHER_KEY, STORAGE_KEY = (bytes([n]) * 32 for n in range(5, 8))
PLAINTEXT = random.Random(5).randbytes(120)


def header_of(key: EntryKey, document: bytes = DOCUMENT, sequence: int = 7, feed: bytes = FEED) -> bytes:
    return encode_header(REALM, feed, Entry(sequence, 1 << 40, document, 1, 1, key.commitment, None))


SEAL_KEY = entry_key(document_key(KEY, DOCUMENT), FEED, 7)
HEADER = header_of(SEAL_KEY)
SEALED = seal(SEAL_KEY, HEADER, PLAINTEXT)


# --- derivation -------------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16), st.integers(1, 2**53 - 1))
def test_keys_are_those_of_rfc_5869(district_key: bytes, ids: bytes, sequence: int) -> None:
    def expand(key: bytes, info: bytes, length: int) -> bytes:
        return HKDFExpand(hashes.SHA256(), length, info).derive(key)

    key = document_key(district_key, ids)
    assert key == expand(district_key, b"rxledger/1 document\0" + ids, 32)
    both = expand(key, b"rxledger/1 entry\0" + ids + sequence.to_bytes(8, "big"), 48)
    assert entry_key(key, ids, sequence) == EntryKey(both[:32], both[32:])


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: str(case["sequence"]))
def test_the_published_vectors_hold(case: dict[str, str]) -> None:
    raw = {name: bytes.fromhex(value) for name, value in case.items() if isinstance(value, str)}
    key = document_key(raw["district_key"], raw["document"])
    entry = entry_key(key, raw["feed"], int(case["sequence"]))
    assert (key, entry) == (raw["document_key"], EntryKey(raw["entry_key"], raw["commitment"]))
    assert seal(entry, raw["header"], raw["plaintext"]) == raw["sealed"]
    assert open_sealed(entry, raw["header"], raw["commitment"], raw["sealed"]) == raw["plaintext"]


def test_every_place_has_its_own_key() -> None:
    keys = {
        entry_key(document_key(district, document), feed, sequence).key
        for district in (KEY, OTHER_KEY)
        for document in (DOCUMENT, OTHER_DOCUMENT)
        for feed in (FEED, REALM)
        for sequence in (1, 2, 256)
    }
    assert len(keys) == 24


# --- seals -------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=2000))
def test_what_is_sealed_opens_and_is_sixteen_bytes_longer(plaintext: bytes) -> None:
    sealed = seal(SEAL_KEY, HEADER, plaintext)
    assert len(sealed) == len(plaintext) + 16
    assert open_sealed(SEAL_KEY, HEADER, SEAL_KEY.commitment, sealed) == plaintext


def test_every_change_of_a_sealed_byte_is_found() -> None:
    for place in range(len(SEALED)):
        for bit in range(8):
            changed = bytearray(SEALED)
            changed[place] ^= 1 << bit
            with pytest.raises(NotAuthentic, match="seal"):
                open_sealed(SEAL_KEY, HEADER, SEAL_KEY.commitment, bytes(changed))


def test_every_change_of_a_header_byte_is_found() -> None:
    for place in range(len(HEADER)):
        changed = bytearray(HEADER)
        changed[place] ^= 1
        with pytest.raises(NotAuthentic, match="seal"):
            open_sealed(SEAL_KEY, bytes(changed), SEAL_KEY.commitment, SEALED)


@pytest.mark.parametrize("length", [*range(40), len(SEALED) - 1, len(SEALED) + 1])
def test_sealed_bytes_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(NotAuthentic, match="seal"):
        open_sealed(SEAL_KEY, HEADER, SEAL_KEY.commitment, (SEALED + b"\0")[:length])


@pytest.mark.parametrize("place", range(16))
def test_another_commitment_is_refused(place: int) -> None:
    changed = bytearray(SEAL_KEY.commitment)
    changed[place] ^= 1
    with pytest.raises(NotAuthentic, match="commits to another key"):
        open_sealed(SEAL_KEY, HEADER, bytes(changed), SEALED)


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_commitment_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(NotAuthentic, match="commits to another key"):
        open_sealed(SEAL_KEY, HEADER, (SEAL_KEY.commitment * 2)[:length], SEALED)


def test_bytes_that_open_under_a_second_key_are_refused_for_their_commitment() -> None:
    """Sealed honestly under another key, with this entry's header: only the commitment tells them apart."""
    second = entry_key(document_key(OTHER_KEY, DOCUMENT), FEED, 7)
    sealed = seal(second, HEADER, PLAINTEXT)
    assert open_sealed(second, HEADER, second.commitment, sealed) == PLAINTEXT
    with pytest.raises(NotAuthentic, match="commits to another key"):
        open_sealed(second, HEADER, SEAL_KEY.commitment, sealed)


@pytest.mark.parametrize(
    ("document", "sequence", "feed"), [(OTHER_DOCUMENT, 7, FEED), (DOCUMENT, 8, FEED), (DOCUMENT, 7, REALM)]
)
def test_sealed_bytes_moved_to_another_place_are_refused(document: bytes, sequence: int, feed: bytes) -> None:
    there = entry_key(document_key(KEY, document), feed, sequence)
    header = header_of(there, document, sequence, feed)
    with pytest.raises(NotAuthentic, match="seal"):
        open_sealed(there, header, there.commitment, SEALED)
    # With the commitment and key of the old place, the header still says where it stands.
    with pytest.raises(NotAuthentic, match="seal"):
        open_sealed(SEAL_KEY, header_of(SEAL_KEY, document, sequence, feed), SEAL_KEY.commitment, SEALED)


# --- the node's own disk ----------------------------------------------------------------------------------------


@given(st.text(max_size=20), st.binary(max_size=64), st.binary(max_size=500))
def test_what_is_sealed_for_the_own_disk_opens(purpose: str, context: bytes, plaintext: bytes) -> None:
    sealed = seal_local(STORAGE_KEY, purpose, context, plaintext)
    assert open_local(STORAGE_KEY, purpose, context, sealed) == plaintext
    assert sealed == seal_local(STORAGE_KEY, purpose, context, plaintext)


@pytest.mark.parametrize("case", LOCAL, ids=lambda case: case["purpose"])
def test_a_disk_written_once_can_be_read_for_ever(case: dict[str, str]) -> None:
    key, context, plaintext, sealed = (
        bytes.fromhex(case[name]) for name in ("storage_key", "context", "plaintext", "sealed")
    )
    assert open_local(key, case["purpose"], context, sealed) == plaintext
    assert seal_local(key, case["purpose"], context, plaintext) == sealed


def test_a_local_record_opens_for_its_own_purpose_context_and_key_only() -> None:
    sealed = seal_local(STORAGE_KEY, "snapshot", DOCUMENT, PLAINTEXT)
    for key, purpose, context in (
        (KEY, "snapshot", DOCUMENT),
        (STORAGE_KEY, "keyring", DOCUMENT),
        (STORAGE_KEY, "snapshot", OTHER_DOCUMENT),
        (STORAGE_KEY, "snapsho", b"t" + DOCUMENT),
    ):
        with pytest.raises(NotAuthentic):
            open_local(key, purpose, context, sealed)


def test_every_change_or_cut_of_a_local_record_is_found() -> None:
    sealed = seal_local(STORAGE_KEY, "snapshot", DOCUMENT, PLAINTEXT)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        for attempt in (bytes(changed), sealed[:place]):
            with pytest.raises(NotAuthentic):
                open_local(STORAGE_KEY, "snapshot", DOCUMENT, attempt)


def test_local_nonces_differ_with_content_purpose_context_and_key() -> None:
    nonces = {
        seal_local(key, purpose, context, plaintext)[:12]
        for key in (STORAGE_KEY, KEY)
        for purpose in ("snapshot", "keyring")
        for context in (DOCUMENT, OTHER_DOCUMENT)
        for plaintext in (b"", b"a", b"b")
    }
    assert len(nonces) == 24


def test_a_local_record_is_not_sealed_with_the_storage_key_itself() -> None:
    sealed = seal_local(STORAGE_KEY, "snapshot", DOCUMENT, PLAINTEXT)
    data = tagged_hash("local", b"snapshot", DOCUMENT)
    assert AESGCMSIV(STORAGE_KEY).encrypt(sealed[:12], PLAINTEXT, data) != sealed[12:]


# --- patients ----------------------------------------------------------------------------------------------------


def test_a_patients_key_depends_on_district_system_and_code() -> None:
    keys = {
        patient_index_key(key, system, code)
        for key in (KEY, OTHER_KEY)
        for system, code in (("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"))
    }
    assert len(keys) == 8
    assert {len(key) for key in keys} == {32}


# --- the keyring --------------------------------------------------------------------------------------------------


def full_ring() -> Keyring:
    ring = Keyring()
    ring.add_district(DISTRICT, 1, KEY)
    ring.add_district(DISTRICT, 3, OTHER_KEY)
    ring.add_index(DISTRICT, b"i" * 32)
    ring.add_document(OTHER_DOCUMENT, 2, b"d" * 32)
    ring.add_entry(b"l" * 32, EntryKey(b"e" * 32, b"c" * 16))
    return ring


def test_every_node_reads_governance() -> None:
    ring, document = Keyring(), district_document(GOVERNANCE)
    assert ring.document_key(GOVERNANCE, 0, document) == document_key(PUBLIC_DISTRICT_KEY, document)
    assert ring.districts() == []


def test_nobody_replaces_the_public_key_of_governance() -> None:
    ring = Keyring()
    for epoch in (0, 1):
        with pytest.raises(Malformed):
            ring.add_district(GOVERNANCE, epoch, KEY)
    assert ring.newest_epoch(GOVERNANCE) == 0


def test_document_keys_come_from_the_district_or_from_the_document_itself() -> None:
    ring = full_ring()
    assert ring.document_key(DISTRICT, 1, DOCUMENT) == document_key(KEY, DOCUMENT)
    assert ring.document_key(DISTRICT, 3, DOCUMENT) == document_key(OTHER_KEY, DOCUMENT)
    assert ring.document_key(DISTRICT, 2, OTHER_DOCUMENT) == b"d" * 32
    assert ring.document_key("SE-C-0380", 2, OTHER_DOCUMENT) == b"d" * 32


def test_a_districts_key_stands_before_a_document_key_that_somebody_handed_over() -> None:
    ring = full_ring()
    ring.add_document(DOCUMENT, 1, b"x" * 32)
    assert ring.document_key(DISTRICT, 1, DOCUMENT) == document_key(KEY, DOCUMENT)


@pytest.mark.parametrize(("district", "epoch"), [(DISTRICT, 2), (DISTRICT, 0), ("SE-C-0380", 1)])
def test_without_a_key_content_is_unreadable(district: str, epoch: int) -> None:
    with pytest.raises(Unreadable):
        full_ring().document_key(district, epoch, DOCUMENT)


def test_without_an_index_key_patients_cannot_be_looked_up() -> None:
    assert full_ring().index_key(DISTRICT) == b"i" * 32
    with pytest.raises(Unreadable):
        full_ring().index_key("SE-C-0380")


def test_a_keyring_tells_what_it_holds() -> None:
    ring = full_ring()
    assert ring.districts() == [DISTRICT]
    assert ring.epochs(DISTRICT) == [(1, KEY), (3, OTHER_KEY)]
    assert (ring.newest_epoch(DISTRICT), ring.newest_epoch("SE-C-0380")) == (3, 0)
    assert (ring.document_epoch(OTHER_DOCUMENT), ring.document_epoch(DOCUMENT)) == (2, 0)
    assert (ring.has(DISTRICT, 3), ring.has(DISTRICT, 2)) == (True, False)
    assert ring.entry_key_for(b"l" * 32) == EntryKey(b"e" * 32, b"c" * 16)
    assert ring.entry_key_for(b"m" * 32) is None


def test_a_replaced_key_is_forgotten_with_all_that_was_derived_from_it() -> None:
    ring = full_ring()
    before = ring.document_key(DISTRICT, 1, DOCUMENT)
    ring.add_district(DISTRICT, 1, OTHER_KEY)
    assert ring.document_key(DISTRICT, 1, DOCUMENT) == document_key(OTHER_KEY, DOCUMENT) != before


def test_a_forgotten_key_opens_nothing_more_and_leaves_no_trace() -> None:
    ring = full_ring()
    before = (ring.digest(), ring.to_bytes())
    ring.add_district(DISTRICT, 4, KEY)
    ring.document_key(DISTRICT, 4, DOCUMENT)
    ring.forget_district(DISTRICT, 4)
    with pytest.raises(Unreadable):
        ring.document_key(DISTRICT, 4, DOCUMENT)
    assert (ring.digest(), ring.to_bytes()) == before


def test_derived_keys_are_kept_up_to_a_limit_and_are_right_beyond_it() -> None:
    ring = full_ring()
    for number in range(CACHED_DOCUMENT_KEYS_MAX + 1):
        ring.document_key(DISTRICT, 1, number.to_bytes(16, "big"))
    assert len(ring._derived) == CACHED_DOCUMENT_KEYS_MAX
    for number in (0, 1, CACHED_DOCUMENT_KEYS_MAX):
        document = number.to_bytes(16, "big")
        assert ring.document_key(DISTRICT, 1, document) == document_key(KEY, document)


def test_the_digest_changes_with_every_key() -> None:
    ring = Keyring()
    seen = {ring.digest()}
    for change in (
        lambda: ring.add_district(DISTRICT, 1, KEY),
        lambda: ring.add_district(DISTRICT, 2, KEY),
        lambda: ring.add_district(DISTRICT, 2, OTHER_KEY),
        lambda: ring.add_index(DISTRICT, KEY),
        lambda: ring.add_document(DOCUMENT, 1, KEY),
        lambda: ring.add_document(DOCUMENT, 1, OTHER_KEY),
        lambda: ring.add_entry(b"l" * 32, SEAL_KEY),
    ):
        change()
        seen.add(ring.digest())
    assert len(seen) == 8
    assert Keyring.from_bytes(ring.to_bytes()).digest() == ring.digest()


def test_a_keyring_is_stored_and_read_back_whatever_the_order_of_adding() -> None:
    stored = full_ring().to_bytes()
    assert Keyring.from_bytes(stored).to_bytes() == stored
    other = Keyring()
    other.add_entry(b"l" * 32, EntryKey(b"e" * 32, b"c" * 16))
    other.add_document(OTHER_DOCUMENT, 2, b"d" * 32)
    other.add_index(DISTRICT, b"i" * 32)
    other.add_district(DISTRICT, 3, OTHER_KEY)
    other.add_district(DISTRICT, 1, KEY)
    assert other.to_bytes() == stored
    assert Keyring.from_bytes(Keyring().to_bytes()).districts() == []


@given(st.binary(max_size=200))
def test_a_keyring_is_never_read_from_other_bytes(data: bytes) -> None:
    for attempt in (data, data + full_ring().to_bytes()):
        try:
            read = Keyring.from_bytes(attempt)
        except Malformed:
            continue
        assert Keyring.from_bytes(read.to_bytes()).to_bytes() == read.to_bytes()


@pytest.mark.parametrize(
    "parts",
    [
        [[[DISTRICT, 1, b"k" * 31]], [], [], []],
        [[[DISTRICT, 0, KEY]], [], [], []],
        [[[GOVERNANCE, 1, KEY]], [], [], []],
        [[], [[DISTRICT, b"k" * 33]], [], []],
        [[], [], [[b"d" * 15, 1, KEY]], []],
        [[], [], [], [[b"l" * 32, b"e" * 32]]],
        [[], [], []],
        [[], [], [], [], []],
    ],
)
def test_a_keyring_with_a_key_of_the_wrong_size_is_refused(parts: list[object]) -> None:
    with pytest.raises(Malformed):
        Keyring.from_bytes(msgspec.msgpack.encode(parts))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_the_wrong_size_are_refused(length: int) -> None:
    ring = Keyring()
    for add in (
        lambda: ring.add_district(DISTRICT, 1, bytes(length)),
        lambda: ring.add_index(DISTRICT, bytes(length)),
        lambda: ring.add_document(DOCUMENT, 1, bytes(length)),
        lambda: ring.add_entry(bytes(32), EntryKey(bytes(length), bytes(16))),
    ):
        with pytest.raises(Malformed):
            add()


def test_no_key_is_ever_shown() -> None:
    ring = full_ring()
    shown = f"{ring!r} {ring} {SEAL_KEY!r} {SEAL_KEY} {[SEAL_KEY]} {ring.entry_key_for(b'l' * 32)}"
    with pytest.raises(Unreadable) as unreadable:
        ring.document_key(DISTRICT, 9, DOCUMENT)
    with pytest.raises(Malformed) as malformed:
        ring.add_district(DISTRICT, 1, KEY + KEY)
    shown += f" {unreadable.value} {malformed.value}"
    for key in (KEY, OTHER_KEY, SEAL_KEY.key, SEAL_KEY.commitment, b"i" * 32, b"d" * 32, b"e" * 32):
        assert key.hex() not in shown
        assert repr(key)[2:-1] not in shown
