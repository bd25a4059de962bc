"""One folder a server, ready to run: configuration, users, certificate, keys. Made again without harm.

::

    hub-north/nats.conf       what nats-server is started with
              users.conf      who may log in; included
              network.toml    the description it was made from
              server.pem      certificate of the server and of its issuer
              server.key      its key (0600; stays when the rest is made again)
              ca.pem          what it trusts other servers under
              operator.key    who may reload this server and end connections there (0600; stays)

- Each file is written whole and durably. A configuration that nats-server would refuse replaces nothing.
- A folder moves to its machine as it is, and `write_users` works on it there, from the ledger of any node: an island
  admits and revokes without the agency.
- The folders of a network are made in one directory, which stays the master: routes between national servers are bound to
  each other's keys. Whoever reads that directory can be any server, so it is kept like the issuing key.
- Each server has an operator key of its own, so that a stolen folder steers one server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from msgspec import Struct

from ledger.certificates import issue_server
from ledger.entropy import Entropy
from ledger.errors import InvalidInput, NotFound, OtherRealm, StoreDamaged
from ledger.identity import Realm, certificate_key, load_certificate
from ledger.ids import RealmId
from ledger.keystore import write_private
from ledger.stewardship import Issuer
from nodes.nats.certificates import certificates_pem, private_key_pem
from nodes.nats.description import Description, Hub, National, Site, read_description
from nodes.nats.nkeys import Login
from nodes.nats.roster import Roster
from nodes.nats.server import check_config, find_server
from nodes.nats.topology import render, users_in

__all__ = ["Folder", "find_folders", "prepare_run", "read_operator", "write_folder", "write_users"]

CONFIG, USERS, DESCRIPTION = "nats.conf", "users.conf", "network.toml"
CERTIFICATE, KEY, TRUSTED, OPERATOR = "server.pem", "server.key", "ca.pem", "operator.key"
APPLIED = "users.applied"
"""The users that the running server was last seen to have taken, by `nodes.nats.control`."""
RENEW_DAYS = 365
"""A certificate of a server with less than that left is replaced at the next run."""
KEY_BYTES_MAX = 4096
"""Of a PEM file with an Ed25519 key; ours have 119."""


class Folder(Struct, frozen=True):
    """A server's folder, as it is now."""

    path: Path
    name: str
    users: int
    """Nodes and servers that may log in."""
    certificate_until_ms: int
    changed: bool
    """Whether this run changed what the server reads."""

    @property
    def config(self) -> Path:
        """What nats-server is started with."""
        return self.path / CONFIG


def write_folder(
    directory: Path,
    description: Description,
    source: bytes,
    name: str,
    roster: Roster,
    realm: RealmId,
    issuer: Issuer,
    now_ms: int,
    entropy: Entropy,
) -> Folder:
    """Make or renew the folder of one server under a directory.

    Args:
        directory: gets a folder called as the server.
        description: the network.
        source: its file, kept beside what was made from it.
        name: the server's.
        roster: who may log in.
        realm: whose subjects.
        issuer: certifies the server.
        now_ms: decides whether its certificate is renewed.
        entropy: for keys and serial numbers.

    Raises:
        InvalidInput: nats-server refuses what was made; the folder is as before.
        StoreDamaged: a key in it cannot be read.
        StoreFull, KeysLocked: it cannot be written.
    """
    server = description.server(name)
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, operator = (_private_key(folder / file, entropy) for file in (KEY, OPERATOR))
    chain = _renewed(folder, server, key, issuer, now_ms, entropy)
    cluster_keys = []
    if isinstance(server, National):
        for one in description.national:
            (directory / one.name).mkdir(exist_ok=True, mode=0o700)
            cluster_keys.append(_pin(_private_key(directory / one.name / KEY, entropy)))
    made = render(description, server, roster, realm, Login(operator).user, cluster_keys)
    changed = _replace(
        folder,
        {
            CERTIFICATE: certificates_pem(chain),
            # The issuing certificate is the end of trust: a node's, or a district authority's, leads nowhere here.
            TRUSTED: certificates_pem(issuer.certificates),
            DESCRIPTION: source,
            USERS: made.users.encode(),
            CONFIG: made.config.encode(),
        },
    )
    return _described(folder, changed=changed)


def write_users(folder: Path, roster: Roster, realm: Realm) -> Folder:
    """Write again who may log in to the server of a folder. Needs no issuing key, and changes nothing else.

    Raises:
        NotFound: it is no server's folder.
        OtherRealm: it is one of another realm.
        InvalidInput: nats-server refuses what was made; the folder is as before.
        StoreDamaged: a key in it cannot be read.
    """
    if not (folder / DESCRIPTION).exists() or not (folder / OPERATOR).exists():
        raise NotFound(f"{folder} is no server's folder", advice="make one with `rxledger nats config`")
    trusted = _certificate(folder / TRUSTED)
    if trusted is None or not _is_issued_by(trusted, load_certificate(realm.root_certificate)):
        raise OtherRealm(
            f"{folder} belongs to another realm than the node", advice="name a node of its realm"
        )
    description = read_description(folder / DESCRIPTION)
    operator = read_operator(folder)
    made = render(description, description.server(folder.resolve().name), roster, realm.id, operator.user, ())
    return _described(folder, changed=_replace(folder, {USERS: made.users.encode()}))


def find_folders(directory: Path) -> list[Path]:
    """The folders of servers in a directory, or the directory itself if it is one; sorted.

    Raises:
        NotFound: there is none.
    """
    if (directory / DESCRIPTION).exists() and (directory / CONFIG).exists():
        return [directory]
    found = sorted(path.parent for path in directory.glob(f"*/{CONFIG}"))
    if not found:
        raise NotFound(f"no server's folder in {directory}", advice="make some with `rxledger nats config`")
    return found


def prepare_run(folder: Path) -> list[str]:
    """The command that runs the server of a folder, from within it; notes that it starts with the users written there.

    Raises:
        NotFound: it is no server's folder, or there is no nats-server.
        InvalidInput: nats-server refuses its configuration.
    """
    if not (folder / CONFIG).exists():
        raise NotFound(f"{folder} is no server's folder", advice="make one with `rxledger nats config`")
    check_config(folder / CONFIG)
    write_private(folder / APPLIED, (folder / USERS).read_bytes())
    return [str(find_server()), "-c", str((folder / CONFIG).resolve())]


def read_operator(folder: Path) -> Login:
    """The key that steers the server of a folder.

    Raises:
        StoreDamaged: it is not there, or not a key.
    """
    return Login(_read_key(folder / OPERATOR))


def _pin(key: Ed25519PrivateKey) -> str:
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()


# --- helpers ------------------------------------------------------------------------------------------------------------


def _private_key(path: Path, entropy: Entropy) -> Ed25519PrivateKey:
    """The key in a file; made if there is none."""
    if path.exists():
        return _read_key(path)
    key = Ed25519PrivateKey.from_private_bytes(entropy.bytes(32))
    write_private(path, private_key_pem(key))
    return key


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        with path.open("rb") as file:
            key = load_pem_private_key(file.read(KEY_BYTES_MAX), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise StoreDamaged(
            "a server's key cannot be read", where=str(path), advice="restore it, or remove it and run again"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreDamaged("a server's key is not an Ed25519 key", where=str(path))
    return key


def _renewed(
    folder: Path,
    server: National | Hub | Site,
    key: Ed25519PrivateKey,
    issuer: Issuer,
    now_ms: int,
    entropy: Entropy,
) -> tuple[bytes, ...]:
    """The certificate that a server has, or a new one if that no longer fits."""
    public = key.public_key().public_bytes_raw()
    fresh = issue_server(
        issuer.key, issuer.certificates, public, server.name, [server.address, *server.also], now_ms,
        entropy=entropy,
    )  # fmt: skip
    present = _certificate(folder / CERTIFICATE)
    if present is None or certificate_key(present) != public:
        return fresh
    wanted = x509.load_der_x509_certificate(fresh[0])
    soon_ms = now_ms + RENEW_DAYS * 86_400_000
    if (
        present.not_valid_after_utc < datetime.fromtimestamp(soon_ms / 1000, UTC)
        or present.issuer != wanted.issuer
        or _names(present) != _names(wanted)
    ):
        return fresh
    return (present.public_bytes(Encoding.DER), *issuer.certificates)


def _certificate(path: Path) -> x509.Certificate | None:
    """The first certificate in a file."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (FileNotFoundError, ValueError):
        return None  # Made anew: nobody else knows it by more than its key.


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _replace(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Write what differs, have the whole checked, and put back what was if it is refused."""
    before = {name: (folder / name).read_bytes() if (folder / name).exists() else None for name in files}
    different = {name: data for name, data in files.items() if before[name] != data}
    try:
        for name, data in different.items():
            write_private(folder / name, data)
        check_config(folder / CONFIG)
    except InvalidInput:
        for name in different:
            was = before[name]
            if was is None:
                (folder / name).unlink(missing_ok=True)
            else:
                write_private(folder / name, was)
        raise
    return bool(different)


def _described(folder: Path, *, changed: bool) -> Folder:
    certificate = _certificate(folder / CERTIFICATE)
    return Folder(
        path=folder,
        name=folder.resolve().name,
        users=len(users_in((folder / USERS).read_text())),
        certificate_until_ms=0
        if certificate is None
        else int(certificate.not_valid_after_utc.timestamp()) * 1000,
        changed=changed,
    )
