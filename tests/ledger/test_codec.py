"""Content: what goes in comes out; whatever else comes in ends in a typed error, within bounds (R15)."""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import sys
import threading
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ledger import codec
from ledger.codec import (
    DICTIONARY_SHA256,
    PARENTS_MAX,
    PLAINTEXT_BYTES_MAX,
    decode_content,
    encode_content,
)
from ledger.errors import LedgerBug, LimitExceeded, Malformed, PeerFault, VersionUnknown
from ledger.events import (
    EVENT_BYTES_MAX,
    Basis,
    Coded,
    Dispensed,
    Level,
    Person,
    PersonRole,
    Product,
    decode_event,
    encode_event,
)
from ledger.feed import SEALED_BYTES_MAX, Entry, encode_header
from ledger.ids import DocumentId, Link
from ledger.persons import GLN, LICENCE_CODE, NPL_PACK_ID
from ledger.vault import entry_key, seal
from scripts.train_dictionary import TEST_NUMBERS, train

GOLDEN = Path(__file__).parent / "golden" / "content.json"
DICTIONARY = (files("ledger") / "dictionaries" / "1.zdict").read_bytes()
DOCUMENT = DocumentId(bytes(range(16)))
MAGIC = bytes.fromhex("28b52ffd")

links = st.binary(min_size=32, max_size=32).map(Link)
documents = st.binary(min_size=16, max_size=16).map(DocumentId)


def numbered(count: int) -> list[Link]:
    return [Link(number.to_bytes(32, "big")) for number in range(count)]


def framed(plain: bytes, **options: bool) -> bytes:
    """Content of format 1 with this plaintext, right or wrong."""
    dictionary = zstandard.ZstdCompressionDict(DICTIONARY)
    return b"\1" + zstandard.ZstdCompressor(dict_data=dictionary, **options).compress(plain)


def unpacked(content: bytes) -> bytes:
    dictionary = zstandard.ZstdCompressionDict(DICTIONARY)
    return zstandard.ZstdDecompressor(dict_data=dictionary).decompress(content[1:])


def dispensed(rng: random.Random, product: Product | None) -> bytes:
    raw = rng.randbytes
    return encode_event(
        Dispensed(
            person=Person(Coded(LICENCE_CODE, f"00{rng.randint(0, 9999):04}"), PersonRole.PHARMACIST),
            command=raw(16),
            governance=raw(8),
            level=Level.STRAINED,
            fill=2,
            quantity=98,
            basis=Basis.CUSTODY,
            rests_on=raw(32),
            pharmacy=Coded(GLN, f"73599999{rng.randint(0, 99999):05}"),
            product=product,
        )
    )


# --- what goes in comes out ---------------------------------------------------------------------------------


@given(documents, st.sets(links, max_size=PARENTS_MAX), st.binary(max_size=2000))
def test_what_goes_in_comes_out(document: DocumentId, parents: set[Link], event: bytes) -> None:
    content = decode_content(encode_content(document, sorted(parents), event))
    assert (content.document, list(content.parents), content.event_bytes) == (
        document,
        sorted(parents),
        event,
    )


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text())["cases"], ids=lambda case: case["name"])
def test_what_was_once_written_can_be_read_for_ever(case: dict[str, str | list[str]]) -> None:
    content = decode_content(bytes.fromhex(str(case["content"])))
    assert content.document.hex() == case["document"]
    assert [parent.hex() for parent in content.parents] == case["parents"]
    assert content.event_bytes.hex() == case["event"]
    assert decode_event(content.event_bytes).whole


def test_threads_compress_and_decompress_side_by_side() -> None:
    failures: list[object] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(300):
            event = rng.randbytes(rng.randint(0, 500))
            if decode_content(encode_content(DOCUMENT, (), event)).event_bytes != event:
                failures.append(event)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# --- limits: below, at, above ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, EVENT_BYTES_MAX - 1, EVENT_BYTES_MAX])
def test_an_event_up_to_the_limit_is_taken_and_fits_its_entry(size: int) -> None:
    event = random.Random(size).randbytes(size)  # Incompressible: the worst case.
    content = encode_content(DOCUMENT, numbered(PARENTS_MAX), event)
    assert decode_content(content).event_bytes == event
    assert len(content) + 16 <= SEALED_BYTES_MAX


def test_an_event_above_the_limit_is_refused_in_and_out() -> None:
    event = bytes(EVENT_BYTES_MAX + 1)
    with pytest.raises(LimitExceeded, match="16385 bytes"):
        encode_content(DOCUMENT, (), event)
    with pytest.raises(Malformed):
        decode_content(framed(msgspec.msgpack.encode((DOCUMENT, [], event))))


@pytest.mark.parametrize("count", [0, 1, PARENTS_MAX - 1, PARENTS_MAX])
def test_parents_up_to_the_limit_are_taken(count: int) -> None:
    assert list(decode_content(encode_content(DOCUMENT, numbered(count), b"")).parents) == numbered(count)


def test_parents_above_the_limit_are_refused_in_and_out() -> None:
    parents = numbered(PARENTS_MAX + 1)
    with pytest.raises(LimitExceeded, match="65 parents"):
        encode_content(DOCUMENT, parents, b"")
    with pytest.raises(Malformed):
        decode_content(framed(msgspec.msgpack.encode((DOCUMENT, parents, b""))))


@pytest.mark.parametrize(
    ("size", "error"),
    [
        (PLAINTEXT_BYTES_MAX - 1, Malformed),
        (PLAINTEXT_BYTES_MAX, Malformed),
        (PLAINTEXT_BYTES_MAX + 1, LimitExceeded),
        (1 << 26, LimitExceeded),
    ],
)
def test_plaintext_is_bounded_before_it_is_made(size: int, error: type[PeerFault]) -> None:
    with pytest.raises(PeerFault) as caught:
        decode_content(framed(bytes(size)))
    assert type(caught.value) is error


# --- hostile bytes ----------------------------------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_with_a_peers_fault(data: bytes) -> None:
    for attempt in (data, b"\1" + data, b"\1" + MAGIC + data, framed(data)):
        try:
            decode_content(attempt)
        except PeerFault:
            continue


@given(st.data())
def test_changed_content_is_content_or_a_peers_fault(data: st.DataObject) -> None:
    content = bytearray(encode_content(DOCUMENT, numbered(2), b"event" * 40))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_content(bytes(content))
    except PeerFault:
        return


@pytest.mark.parametrize("kept", range(80))
def test_truncated_content_is_refused(kept: int) -> None:
    content = encode_content(DOCUMENT, (), random.Random(1).randbytes(64))
    assert len(content) > 80
    with pytest.raises(Malformed):
        decode_content(content[:kept])


def test_another_format_is_unknown_not_malformed() -> None:
    with pytest.raises(VersionUnknown, match="format 2"):
        decode_content(b"\2" + encode_content(DOCUMENT, (), b"")[1:])


def _other_dictionary() -> zstandard.ZstdCompressionDict:
    rng = random.Random(3)
    return zstandard.train_dictionary(
        2048, [b"sample %d of another kind" % rng.randrange(10**9) for _ in range(3000)]
    )


PLAIN = msgspec.msgpack.encode((DOCUMENT, [], b"e" * 300))
VALID = encode_content(DOCUMENT, (), b"e" * 300)
SKIPPABLE = bytes.fromhex("502a4d18") + (5).to_bytes(4, "little") + b"hello"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(VALID + b"\0", id="a trailing byte"),
        pytest.param(VALID + VALID[1:], id="a second frame"),
        pytest.param(VALID + SKIPPABLE, id="a skippable frame after"),
        pytest.param(VALID[:1] + SKIPPABLE + VALID[1:], id="a skippable frame before"),
        pytest.param(VALID[:1] + SKIPPABLE, id="a skippable frame alone"),
        pytest.param(framed(PLAIN, write_content_size=False), id="no stated size"),
        pytest.param(VALID[:6] + (len(PLAIN) - 257).to_bytes(2, "little") + VALID[8:], id="a size too small"),
        pytest.param(VALID[:6] + (len(PLAIN) - 255).to_bytes(2, "little") + VALID[8:], id="a size too large"),
        pytest.param(framed(b""), id="nothing in the frame"),
        pytest.param(
            b"\1" + zstandard.ZstdCompressor(dict_data=_other_dictionary()).compress(PLAIN),
            id="another dictionary",
        ),
    ],
)
def test_a_frame_that_is_not_exactly_one_whole_frame_is_refused(content: bytes) -> None:
    with pytest.raises(Malformed):
        decode_content(content)


@pytest.mark.parametrize(
    "plain",
    [
        pytest.param(msgspec.msgpack.encode((DOCUMENT, [], b"", b"")), id="a fourth element"),
        pytest.param(msgspec.msgpack.encode((DOCUMENT, [])), id="two elements"),
        pytest.param(msgspec.msgpack.encode((DOCUMENT[:15], [], b"")), id="a short document id"),
        pytest.param(msgspec.msgpack.encode((DOCUMENT, [b"p" * 31], b"")), id="a short parent"),
        pytest.param(msgspec.msgpack.encode((DOCUMENT, [], "text")), id="text for bytes"),
        pytest.param(msgspec.msgpack.encode((DOCUMENT, numbered(2)[::-1], b"")), id="parents descending"),
        pytest.param(msgspec.msgpack.encode((DOCUMENT, numbered(1) * 2, b"")), id="a parent twice"),
        pytest.param(b"\xdc\0\3" + msgspec.msgpack.encode((DOCUMENT, [], b""))[1:], id="a wide array header"),
        pytest.param(msgspec.msgpack.encode((DOCUMENT, [], b"")) + b"\0", id="a trailing byte"),
        pytest.param(b"\x91" * 5000, id="deep nesting"),
    ],
)
def test_plaintext_in_any_other_form_is_refused(plain: bytes) -> None:
    with pytest.raises(Malformed):
        decode_content(framed(plain))


_MEASURE = """
import sys
from ledger.codec import decode_content, encode_content
from ledger.errors import PeerFault
from ledger.ids import DocumentId
decode_content(encode_content(DocumentId(bytes(16)), (), b"warm"))
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmPeak")).split()[1])
frames = [bytes.fromhex(line) for line in sys.stdin.read().split()]
before = peak()
for frame in frames:
    try:
        decode_content(frame)
    except PeerFault:
        pass
print(peak() - before)
"""


def test_bombs_take_no_memory() -> None:
    """Peak address space of the whole process, so that what zstandard allocates counts as well."""
    zeros = bytes(1 << 28)
    block = ((len(PLAIN) << 3) | 1).to_bytes(3, "little") + PLAIN
    size = (len(PLAIN) - 256).to_bytes(2, "little")
    bombs = [
        b"\1" + zstandard.ZstdCompressor(level=19).compress(zeros),
        b"\1" + zstandard.ZstdCompressor(level=19, write_content_size=False).compress(zeros),
        framed(zeros[: 1 << 24]),
        # Frames that declare windows of 1 MiB to 2 GiB for 300 bytes.
        *(b"\1" + MAGIC + bytes([0x40, (log - 10) << 3]) + size + block for log in range(20, 32)),
        # Stated sizes of 4 GiB and 2^63, with nothing behind them.
        b"\1" + MAGIC + b"\xa0" + b"\xff" * 4,
        b"\1" + MAGIC + b"\xe0" + b"\xff" * 7 + b"\x7f",
    ]
    given_bombs = "\n".join(bomb.hex() for bomb in bombs)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE], input=given_bombs, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 4096, f"{done.stdout} KiB"


# --- what we write is never what a reader would refuse -----------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "parents"),
    [
        (DOCUMENT[:15], []),
        (DOCUMENT, [b"p" * 31]),
        (DOCUMENT, numbered(2)[::-1]),
        (DOCUMENT, numbered(1) * 2),
    ],
)
def test_content_that_no_reader_would_accept_is_never_written(document: bytes, parents: list[Link]) -> None:
    with pytest.raises(LedgerBug):
        encode_content(DocumentId(document), parents, b"")


# --- the dictionary ------------------------------------------------------------------------------------------------


def test_the_dictionary_is_the_pinned_one_and_can_be_trained_again() -> None:
    assert hashlib.sha256(DICTIONARY).hexdigest() == DICTIONARY_SHA256
    assert train() == DICTIONARY


def test_another_dictionary_is_never_used() -> None:
    with pytest.raises(LedgerBug, match="dictionary"):
        codec._pinned(DICTIONARY[:-1] + b"?")


def test_the_dictionary_names_nobody() -> None:
    """It is published for ever: twelve digits that can be a personal number must be a test number."""
    numbers = set(re.findall(rb"(?<!\d)(?:18|19|20)\d{10}(?!\d)", DICTIONARY))
    assert {number.decode() for number in numbers} <= set(TEST_NUMBERS)


# --- what it costs on a thin link -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "sealed_max", "in_run_max", "alone_max"),
    [
        pytest.param(None, 190, 260, 330, id="as prescribed"),
        pytest.param(
            Product(
                pack=Coded(NPL_PACK_ID, "20990413100123"), name="Metformin", atc="A10BA02",
                form="filmdragerad tablett", strength="500 mg", pack_quantity=100,
            ),
            205, 265, 330, id="another product",
        ),
    ],
)  # fmt: skip
def test_a_supply_is_small(product: Product | None, sealed_max: int, in_run_max: int, alone_max: int) -> None:
    rng = random.Random(99)
    raw = rng.randbytes
    for _ in range(200):
        key = entry_key(raw(32), raw(16), 1_000_000)
        bare = Entry(1_000_000, 1_790_000_000_000 << 16, raw(16), 1, 1, key.commitment, None)
        content = encode_content(DocumentId(bare.document), [Link(raw(32))], dispensed(rng, product))
        sealed = seal(key, encode_header(raw(16), raw(16), bare), content)
        entry = Entry(bare.sequence, bare.stamp, bare.document, 1, 1, key.commitment, sealed)
        alone = Entry(bare.sequence, bare.stamp, bare.document, 1, 1, key.commitment, sealed, raw(64))
        assert len(sealed) <= sealed_max
        assert len(msgspec.msgpack.encode(entry)) <= in_run_max
        assert len(msgspec.msgpack.encode(alone)) <= alone_max
