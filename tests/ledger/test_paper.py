"""The code on paper: what it holds, what fits, and what any other bytes or characters end in (R13, R15)."""

from __future__ import annotations

import zlib

import msgspec
import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from ledger import paper as module
from ledger.entropy import SeededEntropy
from ledger.errors import LimitExceeded, Malformed, PeerFault, VersionUnknown
from ledger.feed import Entry, SignedOpening
from ledger.paper import (
    PAPER_BYTES_MAX,
    CarriedEntry,
    Paper,
    decode_paper,
    encode_paper,
    from_text,
    to_text,
)

QR_CHARACTERS_MAX = 4296
"""Version 40, level L, alphanumeric."""
ENTROPY = SeededEntropy(11)


def paper(fills: int = 4, carried: int = 0, sealed: int = 400) -> Paper:
    """Incompressible content, as sealed content and keys are."""
    entry = Entry(
        7, 1 << 40, ENTROPY.bytes(16), 1, 1, ENTROPY.bytes(16), ENTROPY.bytes(sealed), ENTROPY.bytes(64)
    )
    slip = CarriedEntry(None, ENTROPY.bytes(16), ENTROPY.bytes(32), entry)
    return Paper(
        SignedOpening(ENTROPY.bytes(900), ENTROPY.bytes(64)), ENTROPY.bytes(32), entry, ENTROPY.bytes(32),
        tuple((fill, ENTROPY.bytes(32)) for fill in range(1, fills + 1)), (slip,) * carried,
    )  # fmt: skip


def coded(plain: bytes, version: int = 1) -> bytes:
    """A code of any content, with a good checksum."""
    body = zstandard.ZstdCompressor().compress(plain)
    return bytes([version]) + zlib.crc32(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("made", [paper(), paper(fills=0), paper(carried=1), paper(fills=12)])
def test_a_paper_reads_back_as_printed(made: Paper) -> None:
    assert decode_paper(from_text(to_text(encode_paper(made)))) == made


def test_the_largest_paper_fits_one_code() -> None:
    text = to_text(b"\xff" * PAPER_BYTES_MAX)
    assert len(text) <= QR_CHARACTERS_MAX
    assert set(text) <= set(module._ALPHABET)
    assert from_text(text) == b"\xff" * PAPER_BYTES_MAX


def test_a_paper_that_does_not_fit_one_code_is_not_printed() -> None:
    with pytest.raises(LimitExceeded):
        encode_paper(paper(fills=99))


def test_no_key_or_seed_shows_when_a_paper_is_shown() -> None:
    made = paper()
    shown = repr(made) + repr(made.__rich_repr__())
    for secret in (made.document_key, *(seed for _, seed in made.seeds)):
        assert repr(secret)[2:12] not in shown
        assert secret.hex()[:8] not in shown


@pytest.mark.parametrize(
    ("data", "text"),
    # The examples of RFC 9285.
    [
        (b"AB", "BB8"),
        (b"Hello!!", "%69 VD92EX0"),
        (b"base-45", "UJCLQE7W581"),
        (b"ietf!", "QED8WEX0"),
        (b"", ""),
    ],
)
def test_text_is_the_standards_base45(data: bytes, text: str) -> None:
    assert to_text(data) == "RXL1:" + text
    assert from_text("RXL1:" + text) == data


@given(st.binary(max_size=PAPER_BYTES_MAX))
def test_any_bytes_survive_as_text(data: bytes) -> None:
    assert from_text(to_text(data)) == data


@given(st.text(max_size=60))
def test_any_text_is_read_in_one_way_or_refused(text: str) -> None:
    for candidate in (text, "RXL1:" + text):
        try:
            assert to_text(from_text(candidate)) == candidate
        except PeerFault:
            continue


@pytest.mark.parametrize("body", ["::::", "GGX", "A", "AAAA", "ab0", "é", "ZZ", ":::"])
def test_text_that_stands_for_no_bytes_is_refused(body: str) -> None:
    with pytest.raises(Malformed):
        from_text("RXL1:" + body)


def test_text_longer_than_any_paper_is_refused_before_it_is_read() -> None:
    with pytest.raises(LimitExceeded):
        from_text("RXL1:" + "0" * 1_000_000)


@given(st.binary(max_size=300))
def test_no_bytes_at_all_end_in_anything_but_a_typed_error(data: bytes) -> None:
    for candidate in (data, b"\1" + data, coded(data)):
        with pytest.raises(PeerFault):
            decode_paper(candidate)


@given(st.data())
def test_a_misread_code_is_noticed(data: st.DataObject) -> None:
    whole = bytearray(encode_paper(PRINTED))
    at, value = data.draw(st.integers(1, len(whole) - 1)), data.draw(st.integers(0, 255))
    assume(whole[at] != value)
    whole[at] = value
    with pytest.raises(Malformed, match="misread"):
        decode_paper(bytes(whole))


def test_a_code_cut_short_at_any_byte_is_noticed() -> None:
    whole = encode_paper(PRINTED)
    for end in range(len(whole)):
        with pytest.raises(Malformed):
            decode_paper(whole[:end])


def test_a_newer_paper_is_named_as_such() -> None:
    with pytest.raises(VersionUnknown):
        decode_paper(coded(b"\x90", version=2))


def test_a_bomb_is_refused_before_it_inflates() -> None:
    with pytest.raises(LimitExceeded):
        decode_paper(coded(b"\0" * 10_000_000))


@pytest.mark.parametrize(
    "plain",
    [
        b"\x91" * 16_000, msgspec.msgpack.encode(()), b"\xdd\xff\xff\xff\xff", b"\xc0",
        msgspec.msgpack.encode({"opening": 1}),
    ],
)  # fmt: skip
def test_other_content_is_refused(plain: bytes) -> None:
    with pytest.raises(Malformed):
        decode_paper(coded(plain))


@pytest.mark.parametrize(
    "seeds", [((0, b"s" * 32),), ((100, b"s" * 32),), ((1, b"s" * 31),), ((1, b"s" * 32),) * 100]
)
def test_seeds_out_of_bounds_are_refused(seeds: tuple[tuple[int, bytes], ...]) -> None:
    made = paper(fills=0, sealed=10)
    fields = (made.opening, made.previous, made.entry, made.document_key, seeds, ())
    with pytest.raises(Malformed):
        decode_paper(coded(msgspec.msgpack.encode(fields)))


def test_larger_than_any_code_is_refused_before_anything_else() -> None:
    with pytest.raises(LimitExceeded):
        decode_paper(b"\1" + b"\0" * PAPER_BYTES_MAX)


PRINTED = paper()
