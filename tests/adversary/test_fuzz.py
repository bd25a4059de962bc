"""The fuzzer runs for a few seconds in every test run; longer by `make fuzz`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from ledger.enrolment import (
    decode_package,
    decode_request,
    encode_package,
    encode_request,
    make_package,
    make_request,
)
from ledger.errors import InvalidInput, Malformed
from ledger.feed import SignedOpening
from ledger.identity import NodeRole
from ledger.policy import decode_policy, default_policy, encode_policy
from ledger.vault import Keyring
from nodes.claims import ClaimRequest, _ClaimBody, decode_claim, encode_claim
from scripts.vectors.craft import STOCKHOLM, World

ROOT = Path(__file__).resolve().parents[2]


def test_hostile_bytes_end_in_typed_errors_within_time_and_memory_and_leave_the_store_whole(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/fuzz.py", "--minutes", "0.08", "--seed", "2026", "--findings", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "0 findings" in done.stdout
    assert not list(tmp_path.iterdir())


def _too_deep(data: bytes, key: bytes = b"") -> bytes:
    """An array or map with one field more than this version knows: 3,000 arrays in each other."""
    assert data[0] & 0xF0 in (0x80, 0x90)
    return bytes([data[0] + 1]) + data[1:] + key + b"\x91" * 3000 + b"\xc0"


def _opening(world: World) -> object:
    return SignedOpening(_too_deep(world.feed("eken").opening.body), bytes(64)).opening()


def _request(world: World) -> object:
    eken = world["eken"]
    return decode_request(
        _too_deep(encode_request(make_request(eken.keys, NodeRole.PHARMACY, STOCKHOLM, "x")))
    )


def _package(world: World) -> object:
    eken = world["eken"]
    package = make_package(
        world.realm, eken.chain, eken.certified, world.issuing.signing, district_keys=[], index_keys={},
        entropy=world.entropy,
    )  # fmt: skip
    return decode_package(_too_deep(encode_package(package)))


def _claim(world: World) -> object:
    body = _ClaimBody(1, world.realm.id, bytes(16), (1,), bytes(16), world.feed("eken").opening)
    return decode_claim(encode_claim(ClaimRequest(_too_deep(msgspec.msgpack.encode(body)), bytes(64))))


def _keyring(world: World) -> object:
    return Keyring.from_bytes(_too_deep(Keyring().to_bytes()))


def _policy(world: World) -> object:
    return decode_policy(_too_deep(encode_policy(default_policy("exercise")), b"\xa1x"))


@pytest.mark.parametrize("read", [_opening, _request, _package, _claim, _keyring, _policy])
def test_nesting_in_a_field_to_come_is_refused_and_never_exhausts_the_stack(
    read: Callable[[World], object],
) -> None:
    with pytest.raises((Malformed, InvalidInput)):
        read(World())
