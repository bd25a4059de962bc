"""Feeds, runs and entries for tests of a store, made with a real key: a store sees sealed bytes, so any will do."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from ledger.feed import (
    Entry,
    Opening,
    Run,
    VerifiedRun,
    feed_id,
    genesis_link,
    run_links,
    sign_link,
    sign_opening,
    verify_run,
)
from ledger.ids import DocumentId, Link, NodeId, RealmId
from ledger.store.port import Store

REALM = RealmId(b"realm for stores")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
DISTRICT, ELSEWHERE = "SE-AB-0180", "SE-AA"
DOCUMENT = DocumentId(b"\x5f\x02" + b"d" * 14)


def document(number: int) -> DocumentId:
    """One of many documents."""
    return DocumentId(b"\x5f\x02" + sha256(number.to_bytes(8, "big")).digest()[:14])


def stripped(run: VerifiedRun) -> VerifiedRun:
    """The same run as a peer may pass it on that keeps the content to itself: links and signature hold."""
    bare = (replace(e, sealed=None, sealed_hash=sha256(e.sealed or b"").digest()) for e in run.entries)
    return verify_run(REALM, Run(run.feed, run.previous, tuple(bare)), PUBLIC)


class FeedForTests:
    """One feed, and runs of it."""

    def __init__(self, number: int = 1, district: str = DISTRICT) -> None:
        opening = Opening(REALM, district, number, sha256(b"%d" % number).digest()[:16], 1, (b"certificate",))
        self.signed = sign_opening(opening, KEY)
        self.id, self.genesis = feed_id(self.signed), genesis_link(self.signed)
        self.district, self.author, self.number = district, NodeId(sha256(b"author").digest()[:16]), number

    def open(self, store: Store) -> FeedForTests:
        """Let a store hold the feed."""
        with store.transaction():
            store.add_feed(self.id, self.signed, self.district, self.author, self.number)
        return self

    def run(
        self,
        count: int,
        after: VerifiedRun | None = None,
        *,
        content: bytes = b"content",
        documents: Sequence[DocumentId] = (DOCUMENT,),
    ) -> VerifiedRun:
        """`count` entries after a run, signed at the end, however long; other content makes another branch."""
        first = after.entries[-1].sequence + 1 if after else 1
        previous = after.links[-1] if after else self.genesis
        bare = tuple(
            Entry(
                number, 1000 + number, documents[number % len(documents)], number % 3, 1, b"commitment.....!",
                sha256(b"%d" % number).digest() * 5 + content,
            )
            for number in range(first, first + count)
        )  # fmt: skip
        links = run_links(REALM, Run(self.id, previous, bare))
        entries = (*bare[:-1], replace(bare[-1], signature=sign_link(links[-1], KEY)))
        return VerifiedRun(self.id, previous, entries, links)


def part(run: VerifiedRun, start: int, end: int) -> VerifiedRun:
    """Entries of a run from index to index, signed at their end."""
    entries = list(run.entries[start:end])
    entries[-1] = replace(entries[-1], signature=sign_link(run.links[end - 1], KEY))
    previous = run.links[start - 1] if start else run.previous
    return verify_run(REALM, Run(run.feed, previous, tuple(entries)), PUBLIC)


def before(run: VerifiedRun, index: int) -> Link:
    """The link before an entry of a run."""
    return run.links[index - 1] if index else run.previous
