"""Subjects, and who may use which: what a hub enforces, and what an eavesdropper on it learns.

Under ``rx.<realm>``, with no word of any patient (R13); short, since every message carries its subject twice:

- ``to.<node>``: the node's mailbox; everybody may post, the node alone may listen.
- ``live.<district>``: new entries, announced once, by and to the nodes of the district, the agency and relays.
- ``here.<district>``: presence, the same.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from msgspec import Struct

from ledger.identity import NodeRole
from ledger.ids import GOVERNANCE, NodeId, RealmId

__all__ = ["Permissions", "here", "live", "mailbox", "permissions", "prefix"]


class Permissions(Struct, frozen=True):
    """Subject patterns that a hub lets one node use; sorted."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def prefix(realm: RealmId) -> str:
    """What all subjects of a realm begin with: realms that share a server rarely meet, and refuse each other if so."""
    return f"rx.{realm.hex()[:8]}"


def mailbox(realm: RealmId, node: NodeId) -> str:
    """Where a node is written to."""
    return f"{prefix(realm)}.to.{base64.urlsafe_b64encode(node).rstrip(b'=').decode()}"


def live(realm: RealmId, district: str) -> str:
    """Where new entries of a district are announced."""
    return f"{prefix(realm)}.live.{district}"


def here(realm: RealmId, district: str) -> str:
    """Where the nodes of a district say that they are there."""
    return f"{prefix(realm)}.here.{district}"


def permissions(realm: RealmId, node: NodeId, role: NodeRole, districts: Iterable[str]) -> Permissions:
    """What a node may publish and listen to: least privilege, by role and districts (R14).

    The agency and relays serve every district. Nobody but the node itself may listen to its mailbox.
    """
    root = prefix(realm)
    if role in (NodeRole.AGENCY, NodeRole.RELAY):
        common = [f"{root}.live.*", f"{root}.here.*"]
    else:
        named = sorted({GOVERNANCE, *districts})
        common = [f"{root}.{kind}.{district}" for kind in ("live", "here") for district in named]
    return Permissions(
        publish=tuple(sorted([*common, f"{root}.to.*"])),
        subscribe=tuple(sorted([*common, mailbox(realm, node)])),
    )
