"""One node as it stands on disk and in memory: keys, store, reader and writer, under one lock.

- Opening proves continuity or begins the next incarnation (section 5 of the design). A second writer is refused.
- `write` is the one way in for this node's own events: checked, stored in one transaction, then returned (R1).
- A command id that was carried out returns its first result (R17), also when the entry came back from a peer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from ledger.clock import Clock, HybridClock, SystemClock
from ledger.enrolment import Enrolment
from ledger.entropy import Entropy, SystemEntropy
from ledger.errors import InvalidInput, NotPermitted, StoreDamaged
from ledger.events import Event, encode_own
from ledger.former import FormerCommands
from ledger.identity import Certified, NodeKeys, NodeRole, Realm, verify_chain
from ledger.ids import GOVERNANCE, DocumentId, FeedId, Link, NodeId, document_month, tagged_hash
from ledger.keystore import Keystore, Unlock
from ledger.reading import Reader
from ledger.store import create_store, open_store
from ledger.store.port import Store
from ledger.surplus import OWN_FACTS_MAX, is_never_refused
from ledger.vault import Keyring, open_local, seal_local
from ledger.writing import Writer, Written

__all__ = ["KEYS_FILE", "STORE_FILE", "Node", "Receipt"]

STORE_FILE = "store.db"
KEYS_FILE = "keys.sealed"
_META_REALM = "realm"
_META_CERTIFICATES = "certificates"
_META_KEYRING = "keyring"
_META_INCARNATION = "incarnation"

log = structlog.get_logger("rxledger")


class Receipt(Struct, frozen=True):
    """What a command did. Returned only once it is durable (R1)."""

    command: bytes
    document: DocumentId
    link: Link
    """Id of the event."""
    repeated: bool = False
    """The command had been carried out before; this is its first result (R17)."""


class Node:
    """Everything that the façade's parts share. Use `ledger.Ledger`."""

    def __init__(
        self,
        store: Store,
        realm: Realm,
        certificates: tuple[bytes, ...],
        keys: NodeKeys,
        storage_key: bytes,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self.lock = threading.RLock()
        self.store, self.realm, self.keys, self.clock, self.entropy = store, realm, keys, clock, entropy
        self.identity: Certified = verify_chain(realm, certificates)
        if self.identity.public_key != keys.public_key:
            raise InvalidInput(
                "the certificate is for another key", advice="use the package made for this node"
            )
        self.on_written: list[Callable[[str, Written], None]] = []
        """Told of each entry of ours with its district, once it is durable: who announces it. Must not raise."""
        self._unannounced: list[tuple[str, Written]] = []
        self._nesting = 0
        self._of_feeds: tuple[int, frozenset[str]] | None = None
        """Districts of the feeds held, as of a state of the store: asked for with every message."""
        self._storage_key = storage_key
        self.keyring = self._load_keyring()
        self.reader = Reader(realm, store, self.keyring, storage_key)
        self.former = FormerCommands(realm.id, self.identity.node, store, self.reader)
        # Own stamps only: a clock kept with every entry would cost a page a commit, and a peer's counts as it comes.
        own = [row.feed for row in store.feeds() if row.author == self.identity.node]
        self.hybrid = HybridClock(max((head.stamp for feed in own for head in store.heads(feed)), default=0))
        self.writer = Writer(
            realm=realm.id,
            node=self.identity.node,
            certificates=certificates,
            signing=keys.signing,
            store=store,
            keyring=self.keyring,
            clock=clock,
            entropy=entropy,
            hybrid=self.hybrid,
            incarnation=int.from_bytes(store.get_meta(_META_INCARNATION) or b"\1", "big"),
        )

    # --- life -----------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        directory: Path,
        enrolment: Enrolment,
        keys: NodeKeys,
        unlock: Unlock,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
    ) -> Node:
        """Make a node's directory from an opened enrolment package.

        Raises:
            InvalidInput: the directory holds a node already.
        """
        clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
        if (directory / STORE_FILE).exists():
            raise InvalidInput("the directory holds a node already", advice="choose an empty directory")
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (directory / KEYS_FILE).exists():
            Keystore.create(directory / KEYS_FILE, keys, unlock, entropy)
        unlocked = Keystore.open(directory / KEYS_FILE, unlock)
        store = create_store(directory / STORE_FILE, enrolment.realm.id)
        with store.transaction():
            store.put_meta(_META_REALM, enrolment.realm.root_certificate)
            store.put_meta(_META_CERTIFICATES, msgspec.msgpack.encode(enrolment.certificates))
            store.put_meta(_META_INCARNATION, (1).to_bytes(4, "big"))
            identity = verify_chain(enrolment.realm, enrolment.certificates).node
            empty = seal_local(unlocked.storage_key, _META_KEYRING, identity, Keyring().to_bytes())
            store.put_meta(_META_KEYRING, empty)
        store.close()
        node = cls.open(directory, unlock, clock=clock, entropy=entropy, new_incarnation=False)
        node.take_keys(enrolment)
        if node.identity.district and node.identity.role is not NodeRole.RELAY:
            with node.store.transaction():
                node.writer.open_feed(node.identity.district)
        return node

    @classmethod
    def open(
        cls,
        directory: Path,
        unlock: Unlock,
        *,
        writable: bool = True,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        new_incarnation: bool | None = None,
    ) -> Node:
        """Open a node. Without proof of continuity it goes on in its next incarnation.

        Raises:
            KeysLocked, StoreBusy, StoreDamaged: as their names say.
        """
        unlocked = Keystore.open(directory / KEYS_FILE, unlock)
        entropy = entropy or SystemEntropy()
        store = open_store(directory / STORE_FILE, writable=writable, entropy=entropy)
        try:
            root, chain = store.get_meta(_META_REALM), store.get_meta(_META_CERTIFICATES)
            if root is None or chain is None or store.get_meta(_META_INCARNATION) is None:
                raise StoreDamaged("the store does not say whose it is", where=STORE_FILE)
            node = cls(
                store,
                Realm.from_certificate(root),
                msgspec.msgpack.decode(chain, type=tuple[bytes, ...]),
                unlocked.node_keys,
                unlocked.storage_key,
                clock or SystemClock(),
                entropy,
            )
            if writable and new_incarnation is not False and not store.continuity_proven:
                node.begin_incarnation("continuity is not proven")
        except BaseException:
            store.close()
            raise
        return node

    def begin_incarnation(self, why: str) -> None:
        """Never write the present feeds again; new ones are opened when needed."""
        known = [row.incarnation for row in self.store.feeds() if row.author == self.identity.node]
        following = max([self.writer.incarnation, *known]) + 1
        with self.transaction():
            self.store.put_meta(_META_INCARNATION, following.to_bytes(4, "big"))
            self.store.begin_continuity()
        self.writer.incarnation = following
        self.writer.forget_feeds()
        log.warning("incarnation.begun", node=self.identity.node.hex(), incarnation=following, why=why)

    def close(self) -> None:
        """Release store and lock."""
        with self.lock:
            self.store.close()

    # --- keys ------------------------------------------------------------------------------------------------

    def _load_keyring(self) -> Keyring:
        sealed = self.store.get_meta(_META_KEYRING)
        if sealed is None:
            raise StoreDamaged("the store holds no keyring, which every store does", where=STORE_FILE)
        return Keyring.from_bytes(open_local(self._storage_key, _META_KEYRING, self.identity.node, sealed))

    def save_keyring(self) -> None:
        """Within a transaction: store the keyring sealed."""
        plain = self.keyring.to_bytes()
        self.store.put_meta(
            _META_KEYRING, seal_local(self._storage_key, _META_KEYRING, self.identity.node, plain)
        )

    @contextmanager
    def new_district_key(self, district: str, epoch: int, key: bytes) -> Iterator[None]:
        """Hold a new key of a district, durably together with what is written meanwhile, or not at all."""
        self.keyring.add_district(district, epoch, key)
        try:
            with self.transaction():
                yield
                self.save_keyring()
        except BaseException:
            self.keyring.forget_district(district, epoch)
            raise

    def take_keys(self, enrolment: Enrolment) -> None:
        """Add the district keys of an enrolment package."""
        with self.lock, self.transaction():
            for key in enrolment.district_keys:
                self.keyring.add_district(key.district, key.epoch, key.key)
            for district, index in enrolment.index_keys.items():
                self.keyring.add_index(district, index)
            self.save_keyring()

    def seal_private(self, purpose: str, context: bytes, plain: bytes) -> bytes:
        """Seal something for this node's own disk."""
        return seal_local(self._storage_key, purpose, context, plain)

    def open_private(self, purpose: str, context: bytes, sealed: bytes) -> bytes:
        """Open what `seal_private` sealed.

        Raises:
            NotAuthentic: it is not that.
        """
        return open_local(self._storage_key, purpose, context, sealed)

    # --- writing -----------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One store transaction; what the writer remembered of it is forgotten if it fails.

        What was written in it is announced when the outermost has ended, and so is durable (R1).
        """
        before = len(self._unannounced)
        self._nesting += 1
        try:
            with self.store.transaction():
                yield
        except BaseException:
            self.writer.forget_feeds()
            del self._unannounced[before:]
            raise
        finally:
            self._nesting -= 1
        if not self._nesting:
            durable, self._unannounced = self._unannounced, []
            for district, written in durable:
                for told in self.on_written:
                    told(district, written)

    def now_ms(self) -> int:
        """The machine's time."""
        return self.clock.now_ms()

    def first_result(self, command: bytes) -> Receipt | None:
        """The receipt of a command already carried out by this node, as far as this store has heard."""
        found = self.store.command(command)
        if found is None and self.writer.incarnation > 1 and self.store.writable:
            self.former.learn(self.keyring.digest(), self.writer.feed)
            found = self.store.command(command)
        return None if found is None else Receipt(command, found[0], found[1], repeated=True)

    def write(
        self,
        district: str,
        document: DocumentId,
        event: Event,
        *,
        lane: int | None = None,
        parents: Sequence[Link] | None = None,
        also: Callable[[Written], None] | None = None,
    ) -> Receipt:
        """Store one event of ours. `also` runs in the same transaction.

        Raises:
            NotPermitted: a relay writes nothing; or this node has written more on this prescription than counts.
            InvalidInput: a field of the event is out of bounds; every reader would call it void.
            StoreFull, StoreDamaged: nothing was written.
        """
        if self.identity.role is NodeRole.RELAY:
            raise NotPermitted("a relay stores and forwards; it writes no events")
        data = encode_own(event)
        if document_month(document) and not is_never_refused(event):
            self._check_room(document)
        if parents is None:
            parents = self.reader.heads(document)
        lane = type(event).lane if lane is None else lane
        with self.transaction():
            written = self.writer.append(district, document, data, parents, lane)
            self.store.put_command(event.command, document, written.link)
            if also is not None:
                also(written)
            self._unannounced.append((district, written))
        self.reader.note_written(document, written.link, parents)
        log.info(
            "event.written",
            kind=type(event).__name__,
            feed=written.feed.hex(),
            sequence=written.entry.sequence,
        )
        return Receipt(event.command, document, written.link)

    def _check_room(self, document: DocumentId) -> None:
        """Refuse an act that might be set aside as surplus: who is told that it was done must be able to rely on it."""
        if self.store.entries_held(document) < OWN_FACTS_MAX:
            return
        own = sum(
            self.reader.author(e.feed)[0].node == self.identity.node for e in self.store.entries_of(document)
        )
        if own >= OWN_FACTS_MAX:
            raise NotPermitted(
                f"this node has written {own} events on one prescription; no more are taken",
                advice="cancel the prescription and issue it anew",
            )

    def new_command(self) -> bytes:
        """A random command id, for a caller that will not repeat itself."""
        return self.entropy.bytes(16)

    # --- feeds ---------------------------------------------------------------------------------------------------

    def feed_of(self, node: NodeId, district: str) -> FeedId | None:
        """The newest unforked feed that a node is known to write in a district: who to name as holder."""
        if node == self.identity.node:
            own = self.writer.feed(district)
            if own is not None:
                return own
        forked = self.store.forks(district)
        rows = [r for r in self.store.feeds(district) if r.author == node and r.feed not in forked]
        return max(rows, key=lambda r: (r.incarnation, r.feed)).feed if rows else None

    def own_feed(self, district: str) -> FeedId:
        """This incarnation's feed in a district, opened durably if need be."""
        known = self.writer.feed(district)
        if known is None:
            with self.transaction():
                known = self.writer.open_feed(district)
        return known

    def held_districts(self) -> list[str]:
        """Districts of which entries or keys are held, governance first."""
        changes = self.store.district_changes()
        if self._of_feeds is None or self._of_feeds[0] != changes:
            self._of_feeds = changes, frozenset(row.district for row in self.store.feeds())
        rest = self._of_feeds[1].union(self.keyring.districts())
        return [GOVERNANCE, *sorted(rest - {GOVERNANCE})]

    def secret_for(self, purpose: str, context: bytes) -> bytes:
        """32 secret bytes that this node, and only it, can make again."""
        return tagged_hash("secret", self._storage_key, purpose.encode(), context)

    def nonce_for(self, command: bytes) -> bytes:
        """16 bytes that nobody else can guess and that a repeated command makes again."""
        return self.secret_for("nonce", command)[:16]
