"""Hostile bytes against everything that decodes, and against a real store (R14, R15).

    python scripts/fuzz.py --minutes 10 --seed 1

Valid bytes of every kind are changed as bytes, as MessagePack trees (also inside frames, papers and signed bodies,
whose checksums are made good again) and made up from nothing. Asserted of every input:

- nothing but the error types for it comes out: `PeerFault` for a peer's bytes, `CommandRefused` too for files;
- it costs at most `SECONDS_MAX` of processor time, and the whole run stays below `MEMORY_BYTES_MAX` more than at its start;
- the store still verifies, and good peers still agree with it (checked now and then, and at the end).

A failing input is written to ``build/fuzz/`` and named together with the seed; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import resource
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import msgspec
import structlog
import zstandard

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.world import DISTRICT, PHARMACIST, PRESCRIBER, SmallRealm, order  # noqa: E402
from ledger import NodeRole, SeededEntropy, Supply  # noqa: E402
from ledger.codec import _compressor, _decompressor, decode_content, encode_content  # noqa: E402
from ledger.enrolment import (  # noqa: E402
    decode_package,
    decode_request,
    encode_package,
    encode_request,
    make_package,
    make_request,
    open_package,
)
from ledger.errors import CommandRefused, Malformed, PeerFault  # noqa: E402
from ledger.events import decode_event, event_json  # noqa: E402
from ledger.feed import Entry, ForkProof, Run, SignedOpening  # noqa: E402
from ledger.identity import NodeKeys, Realm, verify_chain  # noqa: E402
from ledger.ids import GOVERNANCE, DocumentId, FeedId, Link, tagged_hash  # noqa: E402
from ledger.paper import decode_paper, from_text, to_text  # noqa: E402
from ledger.vault import Keyring  # noqa: E402
from nodes.bundle import (  # noqa: E402
    MAGIC,
    _following,
    decode_frontier,
    encode_frontier,
    export_bundle,
    import_bundle,
)
from nodes.claims import answer_claim, decode_claim, make_claim  # noqa: E402
from nodes.fhir import read_bytes  # noqa: E402
from nodes.inprocess import synchronise  # noqa: E402
from nodes.messages import Digest, Done, Frontier, Refusal, encode_message  # noqa: E402
from nodes.messages import decode_message as decode_a_message  # noqa: E402
from nodes.reconciliation import Session  # noqa: E402
from scripts.fuzz_frames import Frames  # noqa: E402

__all__ = ["main"]

SECONDS_MAX = 2.0
MEMORY_BYTES_MAX = 768 * 1024 * 1024
CHECK_EVERY = 4000
HANG_SECONDS = 60
TREE_DEPTH_MAX = 40

Rng = random.Random
Wrap = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
FHIR = b"""{"resourceType":"MedicationRequest","id":"1","status":"active","intent":"order",
"medicationCodeableConcept":{"coding":[{"system":"http://medication.ehm.se/nplpackid","code":"20991231100001"}],
"text":"Metformin"},"subject":{"reference":"#p"},"contained":[{"resourceType":"Patient","id":"p","birthDate":"1950-01-01",
"gender":"female","name":[{"text":"Test Testsson"}]}],"authoredOn":"2026-11-24","dosageInstruction":[{"text":"1 tablett",
"timing":{"repeat":{"frequency":1,"period":1,"periodUnit":"d"}}}],
"dispenseRequest":{"numberOfRepeatsAllowed":3,"quantity":{"value":100}}}"""


class Target(msgspec.Struct):
    """One thing that takes bytes from outside."""

    name: str
    take: Callable[[bytes], object]
    samples: list[bytes]
    wrap: Wrap | None = None
    """Inflates and deflates: changes go inside."""
    errors: tuple[type[Exception], ...] = (PeerFault,)
    text: bool = False


# --- changing bytes -------------------------------------------------------------------------------------------------

_TAGS = (
    b"\xc1", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdb\x7f\xff\xff\xff", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xca\x7f\xc0\0\0", b"\xcb" + b"\xff" * 8,
    b"\xc7\x00\x00", b"\xd6\xff\xff\xff\xff\xff", b"\x91" * 64, b"\x81\xa0" * 64, b"\xc0",
)  # fmt: skip
_ODD: tuple[object, ...] = (
    None, True, -1, 0, 1, 99, 100, 2**31, 2**53, 2**53 - 1, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan"),
    float("inf"), "", "\0", "a" * 70, "ä" * 5000, "9999-12-31", "0001-01-01", "2026-02-30", b"", bytes(16), bytes(31),
    bytes(32), b"\xff" * 32, bytes(33), bytes(64), bytes(20481), [], {}, [[]], {"": 0}, msgspec.msgpack.Ext(5, b"x"),
)  # fmt: skip


def _bytes_changed(data: bytes, rng: Rng, others: list[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(8):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + rng.choice((1, 2, 8, 64, len(out)))]
            case 2:
                out[at:at] = rng.choice(_TAGS)
            case 3:
                out[at : at + 1] = rng.choice(_TAGS)
            case 4:
                out[at:at] = rng.randbytes(rng.choice((1, 4, 32)))
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                out[at : at + rng.choice((0, 8, 64))] = other[start : start + rng.choice((8, 64, 512))]
            case 6:
                out[at:at] = out[at : at + rng.choice((1, 16, 256))]
            case _:
                del out[at:]
    return bytes(out)


def _odd(rng: Rng) -> object:
    if rng.random() < 0.1:
        value: object = 0
        for _ in range(rng.choice((3, 12, 60, 900))):
            value = [value] if rng.random() < 0.5 else {"x": value}
        return value
    if rng.random() < 0.05:
        return [rng.choice(_ODD)] * rng.choice((65, 1001, 5000))
    return rng.choice(_ODD)


def _tree_changed(value: object, rng: Rng, depth: int = 0) -> object:  # noqa: C901, PLR0912 - one table
    """One change somewhere in a tree, also inside bytes that are MessagePack themselves."""
    if depth > TREE_DEPTH_MAX or rng.random() < 0.08:
        return _odd(rng)
    if isinstance(value, list) and value:
        items, at = list(value), rng.randrange(len(value))
        match rng.randrange(12):
            case 0:
                del items[at]
            case 1:
                items.insert(at, items[at])
            case 2:
                items.append(_odd(rng) if rng.random() < 0.7 else _DEEP)
            case 3:
                rng.shuffle(items)
            case 4:
                items = items[:at]
            case _:
                items[at] = _tree_changed(items[at], rng, depth + 1)
        return items
    if isinstance(value, dict) and value:
        changed = dict(value)
        key = rng.choice(list(changed))
        match rng.randrange(8):
            case 0:
                del changed[key]
            case 1:
                changed[rng.choice(("", "x", "kind", "t", 7, b"k"))] = _odd(rng)
            case _:
                changed[key] = _tree_changed(changed[key], rng, depth + 1)
        return changed
    if isinstance(value, bytes):
        if len(value) > 40 and rng.random() < 0.7:
            try:
                inner = msgspec.msgpack.decode(value)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return _bytes_changed(value, rng, [value])
            if isinstance(inner, list | dict):
                return _packed(_tree_changed(inner, rng, depth + 1))
        return _bytes_changed(value, rng, [value])
    if isinstance(value, int) and not isinstance(value, bool):
        return value + rng.choice((-1, 1, 256, 2**31, -value, -2 * value))
    return _odd(rng)


_DEEP = msgspec.msgpack.Ext(77, b"deep")
"""Stands for nesting deeper than an encoder can write; as the last element more it is skipped by a lazy decoder."""


def _packed(value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value).replace(msgspec.msgpack.encode(_DEEP), b"\x91" * 3000 + b"\xc0")
    except (TypeError, OverflowError, ValueError, RecursionError):
        return b"\x91" * 2000


def changed(data: bytes, rng: Rng, target: Target) -> bytes:
    """Something like `data` that its reader must survive."""
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.choice((0, 1, 5, 40, 400, 4000)))
    if kind < 0.07:
        return rng.choice((b"\x91", b"\x81\xa1x", b"[", b'{"a":')) * rng.choice((100, 1000, 5000))
    if kind < 0.35:
        return _bytes_changed(data, rng, target.samples)
    if target.wrap is not None:
        inflate, deflate = target.wrap
        plain = inflate(data)
        return deflate(_tree_or_bytes(plain, rng, target))
    return _tree_or_bytes(data, rng, target)


def _tree_or_bytes(plain: bytes, rng: Rng, target: Target) -> bytes:
    decode = msgspec.json.decode if target.text else msgspec.msgpack.decode
    try:
        tree = decode(plain)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _bytes_changed(plain, rng, [plain])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = _tree_changed(tree, rng)
    if not target.text:
        return _packed(tree)
    try:
        return msgspec.json.encode(tree)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return b"[" * 5000


# --- what bytes are wrapped in ------------------------------------------------------------------------------------------

_inflate = zstandard.ZstdDecompressor()
_deflate = zstandard.ZstdCompressor(level=1)


def _paper_wrap() -> Wrap:
    def pack(plain: bytes) -> bytes:
        body = _deflate.compress(plain)
        return b"\1" + zlib.crc32(body).to_bytes(4, "big") + body

    return (lambda data: _inflate.decompress(data[5:]), pack)


def _content_wrap() -> Wrap:
    return (
        lambda data: _decompressor().decompress(data[1:]),
        lambda plain: b"\1" + _compressor().compress(plain),
    )


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = len(MAGIC)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4], data[at + 21 : at + 21 + length]
        at += 21 + length


def _bundle_wrap() -> Wrap:
    """A bundle as one tree of its frames; framed and chained anew afterwards."""

    def unpack(data: bytes) -> bytes:
        return _packed([[kind, _inflate.decompress(body)] for kind, body in _frames(data)])

    def pack(plain: bytes) -> bytes:
        out, chain = bytearray(MAGIC), tagged_hash("bundle", MAGIC)[:16]
        try:
            frames = msgspec.msgpack.decode(plain, type=list[tuple[int, bytes]])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return plain
        for kind, inner in frames:
            body = _deflate.compress(inner)
            chain = _following(chain, kind % 256 if kind >= 0 else 0, body)
            out += len(body).to_bytes(4, "big") + bytes([kind % 256]) + chain + body
        return bytes(out)

    return unpack, pack


# --- the world ----------------------------------------------------------------------------------------------------------


class World:
    """A small realm on disk with a story in it, and every target against its pharmacy."""

    def __init__(self, directory: Path, rng: Rng) -> None:
        self.rng = rng
        self.small = SmallRealm(directory)
        small = self.small
        self.victim = small.enrol("victim", NodeRole.PHARMACY)
        small.replicate()
        synchronise(small.prescriber.exchange, self.victim.exchange)
        doctor, pharmacy = small.prescriber, small.pharmacy
        self.documents = [
            doctor.prescribe(order(n, holder=pharmacy.node.identity.node), person=PRESCRIBER).document
            for n in range(3)
        ]
        self.bearer = doctor.prescribe(
            msgspec.structs.replace(order(3, holder=None, fills=2), bearer=True), person=PRESCRIBER
        ).document
        small.replicate()
        self.supply = pharmacy.dispense(self.documents[0], Supply(fill=1), person=PHARMACIST).link
        self.targets = self._targets()
        for name, take, samples, raises in Frames(self.victim, small.pharmacy).targets():
            self.targets.append(Target(name, take, samples, None, raises))

    def poison(self) -> None:
        """A dishonest node with a good certificate signs content that no honest one would; everybody must go on."""
        rng, doctor = self.rng, self.small.prescriber.node
        document = rng.choice([*self.documents, self.bearer])
        opened = [o for o in doctor.reader.opened(document) if o.fact is not None]
        fact = rng.choice(opened).fact
        assert fact is not None
        data = _tree_or_bytes(fact.event_bytes, rng, Target("event", bytes, [fact.event_bytes]))[: 16 * 1024]
        parents = rng.sample([o.fact.id for o in opened if o.fact], min(len(opened), 2))
        if rng.random() < 0.2:
            parents.append(Link(rng.randbytes(32)))
        if rng.random() < 0.3:
            document = DocumentId(rng.choice((rng.randbytes(16), bytes(16), b"\xff" * 16)))
        with doctor.lock, doctor.transaction():
            doctor.writer.append(DISTRICT, document, data, sorted(set(parents)), rng.randrange(3))
        synchronise(self.small.prescriber.exchange, self.victim.exchange)
        if self.victim.node.reader.state(document) is not None:
            self.victim.inquiry.history(document)

    def check(self) -> None:
        """The store is whole, and good peers agree with it."""
        for _ in self.victim.inquiry.verify():
            pass
        for _ in self.victim.inquiry.rebuild():
            pass
        self.victim.inquiry.index_arrivals()
        for peer in (self.small.prescriber, self.small.pharmacy, self.victim):
            synchronise(self.small.agency.exchange, peer.exchange)
        for peer in (self.small.prescriber, self.small.pharmacy, self.victim):
            synchronise(self.small.agency.exchange, peer.exchange)
        places = [GOVERNANCE, DISTRICT]
        for digest in ("frontier_digest", "state_digest"):
            found = {getattr(n.inquiry, digest)(places) for n in (self.small.pharmacy, self.victim)}
            assert len(found) == 1, f"good peers differ in their {digest}"

    def _targets(self) -> list[Target]:
        small, victim = self.small, self.victim
        exchange, doctor = victim.exchange, small.prescriber
        realm = victim.node.realm
        openings = [
            doctor.exchange.opening(f) for d in (GOVERNANCE, DISTRICT) for f in doctor.exchange.frontier(d)
        ]
        runs = [
            r for d in (GOVERNANCE, DISTRICT) for f in small.pharmacy.exchange.frontier(d)
            for r in small.pharmacy.exchange.runs(f, (), 1 << 20)
        ]  # fmt: skip
        events, contents = [], []
        for document in (*self.documents, self.bearer):
            for opened in small.pharmacy.node.reader.opened(document):
                if opened.fact is not None:
                    events.append(opened.fact.event_bytes)
                    contents.append(encode_content(document, opened.fact.parents, opened.fact.event_bytes))
        paper = doctor.papers.print(self.bearer)
        slip = small.pharmacy.papers.slip(self.documents[0], self.supply)
        claim = make_claim(victim, self.documents[0], (2,), DISTRICT, b"c" * 16)
        keys = NodeKeys.generate(SeededEntropy(7))
        request = make_request(keys, NodeRole.PHARMACY, DISTRICT, "Apotek")
        certificates = victim.node.identity.certificates
        own = make_package(
            realm, certificates, verify_chain(realm, certificates), small.founded.issuer.key, district_keys=[],
            index_keys={}, entropy=SeededEntropy(8),
        )  # fmt: skip
        bundle = BytesIO()
        export_bundle(
            small.pharmacy.exchange, small.pharmacy.node.keys.signing, small.pharmacy.node.identity.certificates,
            bundle, now_ms=0,
        )  # fmt: skip
        frontier = {d: exchange.frontier(d) for d in (GOVERNANCE, DISTRICT)}
        session = Session(small.pharmacy.exchange)
        messages = [
            *session.open(),
            encode_message(Digest(exchange.realm, {GOVERNANCE: bytes(32), DISTRICT: bytes(32)})),
            encode_message(Frontier({d: {} for d in frontier})),
            encode_message(Frontier(dict(frontier))),  # type: ignore[arg-type]
            encode_message(Done()),
            encode_message(Refusal("malformed")),
        ]
        messages += [a for m in messages[2:4] for a in session.receive(m)]
        pack = msgspec.msgpack.encode
        run = runs[-1]
        aheads = [pack((r.feed, r.previous, r.entries[0])) for r in runs]
        proofs = [pack(ForkProof(run, runs[0])), pack(ForkProof(run, run))]
        ending = victim.node.identity.certificates
        refused = (PeerFault, CommandRefused)
        return [
            Target("opening", _opening, [o.body for o in openings]),
            Target("signed-opening", self._signed_opening, [o.body for o in openings]),
            Target("event", decode_event, events),
            Target("event-json", lambda d: (decode_event(d), event_json(d)), events),
            Target("content", decode_content, contents, _content_wrap()),
            Target("paper", decode_paper, [paper, slip], _paper_wrap()),
            Target("scan", victim.papers.scan, [paper, slip], _paper_wrap()),
            Target("paper-text", lambda d: from_text(d.decode("latin-1")), [to_text(paper).encode()]),
            Target("claim", decode_claim, [claim]),
            Target("answer", lambda d: answer_claim(victim, d, person=PHARMACIST), [claim], None, refused),
            Target("request", decode_request, [encode_request(request)]),
            Target("package", lambda d: open_package(decode_package(d), victim.node.keys), [encode_package(own)]),
            Target("certificate", lambda d: verify_chain(realm, (d, *ending[1:])), [*ending]),
            Target("issuer", lambda d: verify_chain(realm, (ending[0], d)), [*ending]),
            Target("root", Realm.from_certificate, [realm.root_certificate, *ending]),
            Target("keyring", Keyring.from_bytes, [victim.node.keyring.to_bytes()]),
            Target("frontier", lambda d: decode_frontier(d.decode("latin-1")), [encode_frontier(frontier).encode()],
                   None, refused, text=True),
            Target("fhir", lambda d: list(read_bytes(d)), [FHIR], None, (), text=True),
            Target("message", decode_a_message, messages),
            Target("session", lambda d: Session(exchange).receive(d), messages, None, ()),
            Target("bundle", lambda d: import_bundle(exchange, BytesIO(d), realm=realm), [bundle.getvalue()],
                   _bundle_wrap()),
            Target("import-openings", lambda d: exchange.import_openings([_typed(d, SignedOpening)]),
                   [pack(o) for o in openings]),
            Target("import-runs", lambda d: exchange.import_runs([_typed(d, Run)]), [pack(r) for r in runs]),
            Target("import-ahead", self._ahead, aheads),
            Target("import-proof", lambda d: exchange.import_fork_proof(_typed(d, ForkProof)), proofs),
        ]  # fmt: skip

    def _ahead(self, data: bytes) -> bool:
        feed, previous, entry = _typed(data, tuple[bytes, bytes, Entry])
        return self.victim.exchange.import_detached(FeedId(feed), Link(previous), entry)

    def _signed_opening(self, body: bytes) -> int:
        """An opening that says what no honest node says, with its author's own good signature."""
        node = self.small.prescriber.node
        signature = node.keys.signing.sign(b"rxledger/1 sign opening\0" + body)
        return self.victim.exchange.import_openings([SignedOpening(body[: 8 * 1024], signature)])

    def close(self) -> None:
        """Close the stores."""
        self.victim.close()
        self.small.close()


def _typed(data: bytes, kind: type) -> object:
    """What a message would have made of it: wrong types never get further than that."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed("not of that type") from error


def _opening(data: bytes) -> object:
    return SignedOpening(data[: 8 * 1024], bytes(64)).opening()


# --- running --------------------------------------------------------------------------------------------------------------


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES_MAX
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _one(target: Target, data: bytes) -> str:
    """What was wrong with how an input was taken; empty if nothing."""
    started = time.process_time()
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    try:
        target.take(data)
    except target.errors:
        pass
    except Exception:
        return traceback.format_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()
    spent = time.process_time() - started
    return f"took {spent:.1f} s of processor time" if spent > SECONDS_MAX else ""


def _found(directory: Path, seed: int, target: str, data: bytes, what: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{target}-{seed}-{zlib.crc32(data):08x}.bin"
    path.write_bytes(data)
    print(f"\nFAILED {target} (seed {seed}); input in {path}\n{what}", file=sys.stderr)


def run(minutes: float, seed: int, findings: Path) -> int:
    """Fuzz for so long; returns the number of findings."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    rng, found, tried = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory(prefix="rxledger-fuzz-") as directory:
        world = World(Path(directory), rng)
        _limit_memory()
        ends, told = time.monotonic() + minutes * 60, 0.0
        poison = Target("poison", lambda _: world.poison(), [b""], None, ())
        sound = Target("check", lambda _: world.check(), [b""], None, ())
        seen: set[str] = set()

        def attempt(target: Target, data: bytes) -> None:
            nonlocal found
            what = _one(target, data)
            # The same line of code is one finding.
            lines = [line for line in what.splitlines() if line.startswith("  File ")]
            place = f"{target.name} {lines[-1] if lines else what[:4]}" if what else ""
            if what and place not in seen:
                seen.add(place)
                found += 1
                _found(findings, seed, target.name, data, what)

        while time.monotonic() < ends:
            target = rng.choice(world.targets)
            attempt(target, changed(rng.choice(target.samples), rng, target))
            tried += 1
            if tried % 100 == 0 and tried < 100 * 400:
                attempt(poison, b"")
            if tried % CHECK_EVERY == 0:
                attempt(msgspec.structs.replace(sound, take=lambda _: world.check()), b"")
            if time.monotonic() - told > 1 and sys.stderr.isatty():
                told = time.monotonic()
                print(
                    f"\r{tried} inputs, {found} findings, {ends - told:.0f} s left ", end="", file=sys.stderr
                )
        what = _one(sound, b"")
        if what and "processor time" not in what:
            found += 1
            _found(findings, seed, "check", b"", what)
        world.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{tried} inputs of seed {seed} against {len(world.targets)} targets: {found} findings; peak {peak} MiB"
    )
    return found


def main() -> int:
    """Parse and run."""
    options = argparse.ArgumentParser(description="Hostile bytes against every decoder and a real store.")
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--seed", type=int, default=None, help="default: another every time")
    options.add_argument("--findings", type=Path, default=ROOT / "build" / "fuzz", metavar="DIR")
    given = options.parse_args()
    seed = given.seed if given.seed is not None else time.time_ns() % (1 << 32)
    print(
        f"seed {seed}; again with: python scripts/fuzz.py --minutes {given.minutes} --seed {seed}", flush=True
    )
    return 1 if run(given.minutes, seed, given.findings) else 0


if __name__ == "__main__":
    raise SystemExit(main())
