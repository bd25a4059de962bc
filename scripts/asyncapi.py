"""The description of what goes over links, in AsyncAPI 3.0, and the JSON Schemas that it points at; all from the code.

Subjects, frames (`nodes.wire`), what stands in letters (`nodes.messages`), and who may use which subject
(`nodes.nats.subjects`). Values travel as MessagePack; schemas follow the conventions of ``schemas/README.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from ledger.feed import Entry
from ledger.identity import CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX, NodeRole
from ledger.ids import NodeId, RealmId
from nodes import messages, wire
from nodes.envelope import LETTER_OVERHEAD_BYTES
from nodes.nats import subjects
from nodes.wire import Kind

__all__ = ["MESSAGES", "REPLIES", "SCHEMA_FILE", "asyncapi", "network_components"]

MSGPACK, OPAQUE = "application/vnd.msgpack", "application/octet-stream"
SCHEMA_FILE = "network.schema.json"
_FORMAT = "application/schema+json;version=draft-2020-12"
MESSAGES: dict[str, type] = {kind.__name__: kind for kind in get_args(messages.Message)}
"""What can stand in a letter, by name."""
_REALM, _NODE = RealmId(bytes(16)), NodeId(bytes(16))


def _base64(least: int, most: int) -> dict[str, Any]:
    """So many bytes, as JSON Schema states them."""
    return {
        "type": "string",
        "contentEncoding": "base64",
        "minLength": -(-least // 3) * 4,
        "maxLength": -(-most // 3) * 4,
    }


def network_components() -> dict[str, Any]:
    """JSON Schemas by name: the messages in letters and the bodies of frames, with all that stands in them."""
    structs = (*MESSAGES.values(), messages.Ahead, Entry, wire.Live, wire.SignedHere)
    _, defined = msgspec.json.schema_components(structs, ref_template="#/$defs/{name}")
    # What msgspec does not say: the form of keys that are no text, and versions that are constants.
    feeds = defined["Frontier"]["prefixItems"][1]["additionalProperties"]
    feeds["propertyNames"] = {k: v for k, v in _base64(16, 16).items() if k != "type"}
    defined["Fetched"]["prefixItems"][2]["propertyNames"] = {"pattern": "^[0-9]+$"}
    defined["Live"]["prefixItems"][0] = {"const": wire.LIVE_VERSION}
    body_max = wire.FRAME_BYTES_MAX - 1
    certificate = _base64(1, CERTIFICATE_BYTES_MAX)
    return defined | {
        "Letter": {
            "description": "Id of the sender (16 bytes), nonce (12), what is sealed, tag (16).",
            **_base64(LETTER_OVERHEAD_BYTES, body_max),
        },
        "Introduction": {
            "description": "Certificates of a node, its own first, the root not among them.",
            "type": "array",
            "items": certificate,
            "minItems": 1,
            "maxItems": CERTIFICATES_MAX,
        },
        "Who": {"description": "Id of the node that asks.", **_base64(16, 16)},
        "Speech": {
            "description": "The first twelve bytes of what is sealed in a letter.",
            "type": "object",
            "properties": {
                "round": {"description": "Bytes 0 to 7; zeros: no round.", **_base64(8, 8)},
                "number": {
                    "description": "Bytes 8 to 11, big-endian; 0: no Ack is wanted.",
                    "type": "integer",
                    "minimum": 0,
                    "maximum": 2**32 - 1,
                },
            },
            "required": ["round", "number"],
        },
    }


def asyncapi(version: str, defined: dict[str, Any]) -> dict[str, Any]:
    """The document.

    Args:
        version: of the formats.
        defined: `network_components`; descriptions are taken from there.
    """
    inside = {name: _inside(name, defined) for name in MESSAGES}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "rxledger: replication between nodes",
            "version": version,
            "description": (
                "What nodes of one realm say to each other over NATS core. Every message may be lost, repeated or "
                "reordered; no server is trusted. The formats in words: docs/protocol.md."
            ),
        },
        "defaultContentType": MSGPACK,
        "servers": {
            "server": {
                "host": "{address}:{port}",
                "protocol": "nats",
                "description": "A hub, a relay's or a neighbour's server: TLS 1.3, login with the node's own key.",
                "variables": {"address": {}, "port": {"default": "4222"}},
                "security": [{"$ref": "#/components/securitySchemes/nkey"}],
            }
        },
        "channels": _channels(inside),
        "operations": _operations(),
        "components": {
            "messages": _frames(defined) | inside,
            "securitySchemes": {
                "nkey": {
                    "type": "asymmetricEncryption",
                    "description": "NKey: the server's nonce, signed by the key that the node's certificate names.",
                }
            },
        },
        "x-frame-bytes-max": wire.FRAME_BYTES_MAX,
        "x-message-bytes-max": messages.MESSAGE_BYTES_MAX,
        "x-permissions": _permissions(),
    }


# --- subjects ---------------------------------------------------------------------------------------------------------


def _named(subject: str) -> str:
    """A subject of the realm and the node of zeros, with names for them."""
    return subject.replace(subjects.prefix(_REALM), "rx.{realm}").replace(
        subjects.mailbox(_REALM, _NODE).rsplit(".", 1)[1], "{node}"
    )


def _permissions() -> dict[str, Any]:
    return {
        role.value: msgspec.to_builtins(
            subjects.Permissions(
                tuple(map(_named, allowed.publish)), tuple(sorted(map(_named, allowed.subscribe)))
            )
        )
        for role in NodeRole
        for allowed in (subjects.permissions(_REALM, _NODE, role, ["{district}"]),)
    }


def _channels(inside: Iterable[str]) -> dict[str, Any]:
    realm = {"realm": {"description": "The first four bytes of the realm's id, in hex."}}
    node = {"node": {"description": "The node's id in base64url without padding."}}
    district = {"district": {"description": "The district's name; `governance` for what everybody holds."}}
    return {
        "mailbox": {
            "address": _named(subjects.mailbox(_REALM, _NODE)),
            "description": "Where one node is written to. Everybody may post, the node alone listens.",
            "parameters": realm | node,
            "messages": _listed(Kind.LETTER.name, Kind.INTRODUCTION.name, Kind.WHO.name),
        },
        "live": {
            "address": _named(subjects.live(_REALM, "{district}")),
            "description": "New entries of a district, told once. Whoever misses one learns of it in a round.",
            "parameters": realm | district,
            "messages": _listed(Kind.LIVE.name),
        },
        "here": {
            "address": _named(subjects.here(_REALM, "{district}")),
            "description": "Signs of life of the nodes of a district; of the agency and relays in `governance`.",
            "parameters": realm | district,
            "messages": _listed(Kind.HERE.name),
        },
        "letters": {
            "address": None,
            "description": (
                "What stands in letters once they are opened: round (8 bytes), number (4), message. It has no "
                "subject of its own; servers never see it."
            ),
            "messages": _listed(*inside),
        },
    }


def _listed(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


# --- messages -----------------------------------------------------------------------------------------------------------


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"schemaFormat": _FORMAT, "schema": schema}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"{SCHEMA_FILE}#/$defs/{name}"}


def _frames(defined: dict[str, Any]) -> dict[str, Any]:
    bodies = {
        Kind.LETTER: ("Letter", OPAQUE),
        Kind.INTRODUCTION: ("Introduction", MSGPACK),
        Kind.WHO: ("Who", OPAQUE),
        Kind.LIVE: ("Live", MSGPACK),
        Kind.HERE: ("SignedHere", MSGPACK),
    }
    return {
        kind.name: {
            "name": kind.name,
            "summary": defined[name]["description"],
            "description": f"A frame: the byte {kind.value:02x}, then the body that the schema describes.",
            "contentType": content,
            "payload": _schema(_ref(name)),
            "x-first-byte": kind.value,
        }
        for kind, (name, content) in bodies.items()
    }


def _inside(name: str, defined: dict[str, Any]) -> dict[str, Any]:
    whole = {
        "type": "array",
        "prefixItems": [{"const": messages.VERSION}, _ref(name)],
        "items": False,
        "minItems": 2,
    }
    return {
        "name": name,
        "summary": defined[name]["description"],
        "contentType": MSGPACK,
        "headers": _schema(_ref("Speech")),
        "payload": _schema(whole),
        "x-tag": defined[name]["prefixItems"][0]["enum"][0],
    }


# --- what is done with them -----------------------------------------------------------------------------------------------

REPLIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "askWho": ("mailbox", "WHO", ("INTRODUCTION",)),
    "compareSummaries": ("letters", "Summary", ("InStep", "Digest", "Refusal")),
    "compareDigests": ("letters", "Digest", ("Digest", "Buckets", "Frontier", "InStep", "Refusal")),
    "compareBuckets": ("letters", "Buckets", ("Frontier", "Refusal")),
    "tellFrontier": ("letters", "Frontier", ("Entries", "Detached", "Done", "Ack", "Refusal")),
    "claim": ("letters", "ClaimAsk", ("ClaimTold", "Refusal")),
    "fetch": ("letters", "FetchAsk", ("FetchTold", "Refusal")),
}
"""Operation → channel, what is sent, and what may come back for it."""


def _operations() -> dict[str, Any]:
    def of(channel: str, *names: str) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]

    plain: dict[str, Any] = {
        f"{action}{channel.capitalize()}": {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}
        for channel in ("mailbox", "live", "here", "letters")
        for action in ("send", "receive")
    }
    for name, (channel, sent, back) in REPLIES.items():
        plain[name] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": of(channel, sent),
            "reply": {"channel": {"$ref": f"#/channels/{channel}"}, "messages": of(channel, *back)},
        }
    return plain
