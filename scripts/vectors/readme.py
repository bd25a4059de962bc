"""The page that explains `schemas/`; numbers in it are taken from the code."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.codec import PARENTS_MAX, PLAINTEXT_BYTES_MAX
from ledger.events import DEPTH_MAX, EVENT_BYTES_MAX, KINDS
from ledger.feed import OPENING_BYTES_MAX, RUN_ENTRIES_MAX, SEALED_BYTES_MAX
from ledger.paper import PAPER_BYTES_MAX
from nodes.wire import FRAME_BYTES_MAX

__all__ = ["readme"]

_TEXT = """\
# Schemas and test vectors

Written by `make schemas` from the code; `make check` fails if they drift. The formats in words, and how a set of
entries is judged, stand in [docs/protocol.md](../docs/protocol.md). This page sums up the bytes and says how to run the
vectors with another implementation, in any language.

## Schemas

JSON Schema 2020-12. What travels is **MessagePack**, not JSON; the schemas describe the values:

- `string` with `contentEncoding: base64` is MessagePack `bin` (its lengths are those of the base64 text); every other
  `string` is `str`. `array` with `prefixItems` is an array with exactly those elements; trailing ones that have
  a default may be left out by a writer of openings and papers, never by a writer of content.
- Keys of maps that are integers or `bin` stand as decimals or base64, where a schema says so (`propertyNames`).
- An event is a map: `type` first, then the fields that differ from their default, in the order of the schema.
- Unknown fields and kinds are kept and passed on. They are not errors, so no schema forbids them.

| file | describes |
|---|---|
| `events/<Kind>.schema.json` | each of the {kinds} events |
| `content.schema.json` | what stands inside the seal |
| `entry.schema.json` | entry, run, proof of fork |
| `opening.schema.json` | a feed's opening, signed and bare |
| `paper.schema.json` | what a printed code holds |
| `enrolment.schema.json` | enrolment request and package |
| `asyncapi.json` | AsyncAPI 3.0: subjects, frames, what stands in letters, who may use which subject |
| `network.schema.json` | the schemas that it points at |
| `dictionaries.json` | compression dictionaries by format number |

## The bytes, in short

`‖` concatenates; numbers are big-endian; `H(tag, p…)` = SHA-256(`"rxledger/1 "` ‖ tag ‖ `00` ‖ for each p: its length as
8 bytes ‖ p).

| what | bytes |
|---|---|
| event | MessagePack map in canonical form, at most {event_max} bytes, {depth} levels |
| content | `[document, parents ascending (at most {parents}), event bytes]`, at most {plain_max} bytes |
| plain | `01` ‖ one zstandard frame of content with its size stated, made with dictionary 1 |
| sealed | AES-256-GCM-SIV(entry key, first 12 of SHA-256(header), plain, additional data = header), at most {sealed_max} bytes |
| header | `[realm, feed, sequence, stamp, document, lane, epoch, commitment]` |
| document key | HKDF-Expand-SHA-256(district key, `"rxledger/1 document"` ‖ `00` ‖ document, 32) |
| entry key ‖ commitment | HKDF-Expand-SHA-256(document key, `"rxledger/1 entry"` ‖ `00` ‖ feed ‖ sequence (8), 48) |
| link | SHA-256(`"rxledger/1 link"` ‖ `00` ‖ previous link ‖ SHA-256(sealed) ‖ header) |
| signature of an entry | Ed25519 over `"rxledger/1 sign link"` ‖ `00` ‖ link |
| opening | `[body, Ed25519 over "rxledger/1 sign opening" ‖ 00 ‖ body]`, body at most {opening_max} bytes |
| feed id, genesis link | first 16 of `H("feed", body)`, `H("genesis", body)` |
| entry | `[sequence, stamp, document, lane, epoch, commitment, sealed, signature, hash of sealed]` |
| run | `[feed, previous link, [entry, …]]`, at most {run_max} entries |
| bearer proof | Ed25519 over `"rxledger/1 sign bearer"` ‖ `00` ‖ `H("bearer", document, fill as one byte, feed)` |
| claim | `[body, Ed25519 over "rxledger/1 sign claim" ‖ 00 ‖ body]` |
| paper | `01` ‖ CRC-32 of body ‖ body, at most {paper_max} bytes; as text `RXL1:` ‖ base45 |
| frame | kind (1) ‖ body, at most {frame_max} bytes: 1 letter, 2 introduction, 3 who, 4 live, 5 here |
| letter | sender (16) ‖ nonce (12) ‖ AES-256-GCM-SIV(pair key, nonce, round (8) ‖ number (4) ‖ message, no additional data) |
| pair key | HKDF-SHA-256(X25519(wrapping keys of both), no salt, info = `"rxledger/1 letter"` ‖ `00` ‖ realm ‖ sender ‖ receiver, 32) |
| introduction, who | `[certificate, …]`; the asker's id |
| live | `[1, feed, entry, previous link or empty]` |
| here | `[[node, stamp, digest (8)], Ed25519 over H("here", realm, district, [node, stamp, digest])]` |
| bundle | `"RXBUNDLE"` ‖ frames of: length (4) ‖ kind (1) ‖ chain (16) ‖ body |

Dictionary 1 is `ledger/dictionaries/1.zdict`, SHA-256 `{dictionary}`. It never changes.

## Vectors

{total} folders under `vectors/`, {fails} of which end in `_fail`: what they hold must be refused, or must be judged
to be without right. `vectors/realm.json` holds the realm of all of them: root certificate, test nodes with
their private keys, district and index keys of epoch 1. The keys are published and protect nothing.

`vector.json` of each folder:

| field | |
|---|---|
| `title`, `rules` | what it shows, and the rules of the design that it guards |
| `check` | what to do, see below |
| `inputs` | bytes in hex, or `file:NAME` for a file of the folder |
| `expect.error` | the code that the check must end in; any other error is a failure too |
| `expect.found` | what must come out of a check that succeeds |

A vector marked `_fail` passes only if the check ends in exactly the code stated.

| check | do |
|---|---|
| `public-keys` | accept or refuse a signing (Ed25519) and a wrapping (X25519) key |
| `identifier` | bring a patient's identifier to its one form, on the day `today` |
| `event` | decode and check the canonical form; `known`: the kind is known, `whole`: so are all fields |
| `content` | decode plain: format number, frame, array |
| `chain` | verify certificates against the realm's root; no clock |
| `request`, `package`, `unwrap` | decode and verify; with the private keys of the node named |
| `automerge` | build the Automerge document of the events, in any order of input; the saved bytes must be `saved` |
| `base45` | text of a bar code to bytes and back |
| `message` | hold the messages in `held`, then take in `message`. Its first refusal is the error (`gap`: a run that joins nothing held). After an error no entry more is held than before; `found.entries` are the links that are new |
| `detached` | the same for the one entry of a run, ahead of its feed |
| `frames` | know the nodes of `introductions`, hold `held`, then hear `frames` in order, in one moment. Their first refusal is the error, of a frame or a message in a letter. `found`: per frame the kinds of the answers (of letters, what stands in them), who is `known`, who was `heard`, who is believed to be `in_step`, links that are new |
| `bundle` | import; `incomplete`: it was taken in only in part |
| `paper` | decode, verify and take in |
| `claim` | answer as the node `reader`, which holds nothing |
| `fold` | hold all `messages`, fold; again in the opposite order with every message twice. Both must give what was `found` |
| `act` | the same; the error is the kind of an anomaly that names `event`, or the reason why that event is void |
| `unread` | hold all; `unreadable` if an entry of `document` is of an epoch whose key is not held |
| `governance` | hold all; the level of `district`, whether `node` is revoked; `refused` if `event` has no effect |

`messages`, `held` and `message` are replication messages, `[1, [3, proofs, openings, runs]]`.

In `found` of a fold, `state_sha256` and `state_digest` are digests of this implementation's own encoding of a state. Another
one compares the fields written out beside them, and `frontier_digest` and `automerge_sha256`, which are defined in
the protocol.

### Index

{index}
"""


def readme(names: Sequence[str], dictionary: str) -> str:
    """The text of ``schemas/README.md``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split("_", 1)[0], []).append(name)
    index = "\n".join(
        f"- **{group}** ({len(held)}): " + ", ".join(f"`{n}`" for n in held) for group, held in groups.items()
    )
    return _TEXT.format(
        kinds=len(KINDS), event_max=f"{EVENT_BYTES_MAX:,}", depth=DEPTH_MAX, parents=PARENTS_MAX,
        plain_max=f"{PLAINTEXT_BYTES_MAX:,}", sealed_max=f"{SEALED_BYTES_MAX:,}", opening_max=f"{OPENING_BYTES_MAX:,}",
        run_max=f"{RUN_ENTRIES_MAX:,}", paper_max=f"{PAPER_BYTES_MAX:,}", frame_max=f"{FRAME_BYTES_MAX:,}", dictionary=dictionary, total=len(names),
        fails=sum(name.endswith("_fail") for name in names), index=index,
    )  # fmt: skip
