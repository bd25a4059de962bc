"""The ceremonies: a realm founded, a node enrolled, each leaving directories on disk.

``DIR/root`` (sealed root key, to be kept off line), ``DIR/issuing`` (the agency's issuing key) and ``DIR/agency`` (the
agency's node). A real agency holds root and issuing keys in hardware; here they are sealed files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from ledger import Clock, Entropy, Ledger, NodeRole, Person, Realm, RealmKind, SystemClock, SystemEntropy
from ledger.certificates import create_issuing, create_root, issue_node
from ledger.enrolment import EnrolmentRequest, make_package, make_request, open_package
from ledger.errors import InvalidInput, NotFound, StoreDamaged
from ledger.identity import NodeKeys, verify_chain
from ledger.keystore import Keystore, Unlock, UnlockFile
from ledger.stewardship import Issuer
from nodes.local.opening import connect_or_open

__all__ = ["Founded", "enrol", "found_realm", "open_founded", "open_issuer"]

OWNER_SECONDS = 3.0
"""How long a ceremony waits for a short command to end, or for the agency's daemon to listen."""


class Founded(Struct, frozen=True):
    """An open realm: its agency's ledger and its issuing key."""

    agency: Ledger
    issuer: Issuer
    clock: Clock
    entropy: Entropy


def found_realm(
    directory: Path,
    name: str,
    kind: RealmKind,
    unlock: Unlock,
    *,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
) -> Founded:
    """Found a realm in an empty directory; makes the unlock file if there is none.

    Raises:
        InvalidInput: the directory holds a realm already.
    """
    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    if (directory / "root").exists():
        raise InvalidInput("the directory holds a realm already", advice="choose an empty directory")
    if isinstance(unlock, UnlockFile):
        unlock.ensure(entropy)
    root_keys, issuing_keys, agency_keys = (NodeKeys.generate(entropy) for _ in range(3))
    root_certificate = create_root(root_keys.signing, name, kind, clock.now_ms(), entropy=entropy)
    realm = Realm.from_certificate(root_certificate)
    issuing = create_issuing(
        root_keys.signing, root_certificate, issuing_keys.public_key, clock.now_ms(), entropy=entropy
    )
    for part, keys in (("root", root_keys), ("issuing", issuing_keys)):
        (directory / part).mkdir(parents=True, mode=0o700)
        Keystore.create(directory / part / "keys.sealed", keys, unlock, entropy)
    (directory / "issuing" / "certificates").write_bytes(msgspec.msgpack.encode((root_certificate, issuing)))
    issuer = Issuer(issuing_keys.signing, issuing)
    chain = issue_node(
        issuer.key, issuer.certificates, agency_keys.public_key, agency_keys.wrapping_key, NodeRole.AGENCY, "",
        f"{name} agency", clock.now_ms(), entropy=entropy,
    )  # fmt: skip
    package = make_package(
        realm, chain, verify_chain(realm, chain), issuer.key, district_keys=[], index_keys={}, entropy=entropy
    )
    agency = Ledger.create(
        directory / "agency",
        open_package(package, agency_keys),
        agency_keys,
        unlock,
        clock=clock,
        entropy=entropy,
    )
    return Founded(agency, issuer, clock, entropy)


def open_issuer(directory: Path, unlock: Unlock) -> Issuer:
    """The issuing key of a realm founded earlier; its agency's node may run meanwhile.

    Raises:
        NotFound: there is none.
        KeysLocked, StoreDamaged: as their names say.
    """
    path = directory / "issuing" / "certificates"
    if not path.exists():
        raise NotFound(f"no realm in {directory}", advice="make one with `rxledger realm create`")
    try:
        _, chain = msgspec.msgpack.decode(path.read_bytes(), type=tuple[bytes, tuple[bytes, ...]])
    except msgspec.MsgspecError as error:
        raise StoreDamaged("the issuing certificates cannot be read", where=str(path)) from error
    return Issuer(Keystore.open(directory / "issuing" / "keys.sealed", unlock).node_keys.signing, chain)


def open_founded(
    directory: Path, unlock: Unlock, *, clock: Clock | None = None, entropy: Entropy | None = None
) -> Founded:
    """Open a realm founded earlier; where another process owns the agency's store, its writes go through that one.

    Raises:
        NotFound: there is none.
        StoreBusy: another process owns the agency's store and lets nobody write through it.
    """
    issuer = open_issuer(directory, unlock)
    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    agency = connect_or_open(directory / "agency", unlock, wait_s=OWNER_SECONDS, clock=clock, entropy=entropy)
    return Founded(agency, issuer, clock, entropy)


def enrol(
    founded: Founded,
    directory: Path,
    *,
    role: NodeRole,
    district: str,
    name: str,
    unlock: Unlock,
    person: Person,
    districts: Sequence[str] = (),
) -> Ledger:
    """Enrol a node on this machine: request, admission and directory in one go.

    Raises:
        InvalidInput: the directory holds a node already, or role and district do not go together.
    """
    if role is not NodeRole.RELAY and not district:
        raise InvalidInput("a node of that role needs a home district")
    keys = NodeKeys.generate(founded.entropy)
    request: EnrolmentRequest = make_request(keys, role, district, name)
    package = founded.agency.stewardship.admit(
        request, person=person, issuer=founded.issuer, districts=districts
    )
    return Ledger.create(
        directory, open_package(package, keys), keys, unlock, clock=founded.clock, entropy=founded.entropy
    )
