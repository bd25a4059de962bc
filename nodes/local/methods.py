"""Which methods of a ledger other processes may call, and their parameters: read from the signatures themselves.

The list is closed: what is not on it cannot be called, whatever a client sends. Not on it: what only the owner knows
(whom it has heard), what hands out secrets beyond a paper's own, and what would occupy the owner for minutes
(`verify`, `rebuild`: any process can open the store for reading and do that itself).

Names and parameters are a contract with hosts: they may be added, never removed or given another meaning.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from ledger import Ledger
from ledger.exchange import Exchange
from ledger.ids import DocumentId, FeedId, Link, NodeId, RealmId
from ledger.inquiry import Inquiry
from ledger.node import Node
from ledger.papers import Papers
from ledger.stewardship import Stewardship

__all__ = ["FACES", "PRIVATE_KEY", "Method", "face_of", "method_of", "methods"]

_FACES: dict[str, type] = {
    "ledger": Ledger,
    "stewardship": Stewardship,
    "inquiry": Inquiry,
    "papers": Papers,
    "exchange": Exchange,
    "node": Node,
}
FACES = tuple(_FACES)
_WRITE = {
    "ledger": (
        "prescribe", "amend", "hold", "resume", "cancel", "dispense", "not_dispensed", "reverse", "correct", "link_supply",
        "attach_external_id", "block_access", "give_consent", "resolve", "transfer", "recover", "delegate",
        "end_delegation", "close_feed", "plan_custody", "patient",
    ),
    "stewardship": (
        "admit", "announce", "ensure_district", "revoke", "start_epoch", "take_epochs", "declare", "set_policy", "retire",
    ),
    "inquiry": ("index_arrivals",),
    "papers": ("scan",),
    "exchange": ("import_openings", "import_runs", "import_detached", "import_fork_proof"),
    "node": ("own_feed",),
}  # fmt: skip
"""A lookup of a patient writes the audit log."""
_READ = {
    "ledger": ("assess", "show", "anomalies", "automerge", "policy", "level", "today"),
    "inquiry": ("history", "frontier_digest", "state_digest", "agency_silence_ms"),
    "papers": ("print", "slip"),
    "exchange": (
        "districts", "wants", "frontier", "opening", "runs", "fork_proofs", "detached_links", "detached_entry",
    ),
}  # fmt: skip
_ID_BYTES: dict[object, int] = {DocumentId: 16, FeedId: 16, NodeId: 16, RealmId: 16, Link: 32}
PRIVATE_KEY = "issuer"
"""The parameter that no other process may give: a private key does not travel."""


class Method(Struct, frozen=True):
    """One method that may be called."""

    name: str
    """``face.method``."""
    signature: inspect.Signature
    params: msgspec.msgpack.Decoder[Struct]
    result: msgspec.msgpack.Decoder[Any]
    """Of the result, or of one item of a paged one."""
    paged: bool
    writes: bool

    @property
    def takes_command(self) -> bool:
        """Whether it can be repeated by its command id."""
        return "command" in self.signature.parameters


def face_of(ledger: Ledger, face: str) -> object:
    """A face of an open ledger."""
    return ledger if face == "ledger" else getattr(ledger, face)


def method_of(name: str, function: Callable[..., object], *, writes: bool) -> Method:
    """A method from a function's signature; ``self`` is not a parameter.

    Raises:
        TypeError: a parameter or result cannot travel.
    """
    signature = inspect.signature(function)
    hints = get_type_hints(function)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in signature.parameters.values():
        if parameter.name in ("self", PRIVATE_KEY):
            continue
        kind = _travelling(hints[parameter.name])
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, kind))
        else:
            # What is not given stays away from the call, so that the default is the function's own.
            fields.append((parameter.name, kind | msgspec.UnsetType, msgspec.UNSET))
    params = msgspec.defstruct("Params", fields, frozen=True, kw_only=True, forbid_unknown_fields=True)
    returned = hints.get("return", None)
    paged = get_origin(returned) is collections.abc.Iterator
    item = get_args(returned)[0] if paged else returned
    return Method(
        name,
        signature,
        msgspec.msgpack.Decoder(params),
        msgspec.msgpack.Decoder(_travelling(item)),
        paged,
        writes,
    )


def _travelling(kind: Any) -> Any:  # noqa: ANN401 - a type, which has no type of its own.
    """The type of a value as it arrives: iterables as lists, ids of their one length.

    The library trusts a host's types; another process's have to be checked.
    """
    if kind in _ID_BYTES:
        return Annotated[bytes, Meta(min_length=_ID_BYTES[kind], max_length=_ID_BYTES[kind])]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is None:
        return kind
    inner = tuple(_travelling(i) if i is not Ellipsis else i for i in inner)
    if origin in (Union, types.UnionType):
        return Union[inner]  # noqa: UP007 - of a number of types known only here.
    if origin in (collections.abc.Iterable, collections.abc.Iterator, collections.abc.Sequence):
        return list[inner[0]]  # type: ignore[valid-type]
    return origin[inner]


@cache
def methods() -> dict[str, Method]:
    """Every method of the list, by name."""
    return {
        f"{face}.{name}": method_of(f"{face}.{name}", getattr(_FACES[face], name), writes=writes)
        for table, writes in ((_WRITE, True), (_READ, False))
        for face, names in table.items()
        for name in names
    }
