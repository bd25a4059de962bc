"""A realm founded now, on disk, as servers that look at the machine's clock need it; and clients that log in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.client import Client

from ledger import Ledger, NodeRole, Person, PersonRole, Realm, RealmKind, UnlockFile
from ledger.certificates import issue_server
from ledger.clock import SystemClock
from ledger.entropy import SystemEntropy
from ledger.persons import LICENCE_CODE, Coded
from nodes.founding import Founded, enrol, found_realm
from nodes.nats.certificates import certificates_pem, private_key_pem
from nodes.nats.nkeys import Login
from nodes.nats.session import session

OFFICER = Person(Coded(LICENCE_CODE, "001234"), PersonRole.OFFICER)
STOCKHOLM, UPPSALA = "SE-AB-0180", "SE-C-0380"


class RealmOnDisk:
    """Agency, issuing key and whoever is enrolled; closed by the fixture that made it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.unlock = UnlockFile(directory / "unlock" / "secret")
        self.founded: Founded = found_realm(directory / "realm", "Övning", RealmKind.EXERCISE, self.unlock)
        self.nodes: list[Ledger] = []

    @property
    def realm(self) -> Realm:
        return self.founded.agency.node.realm

    def enrol(self, role: NodeRole, district: str, name: str) -> Ledger:
        """One node more."""
        node = enrol(
            self.founded, self.directory / name, role=role, district=district, name=name, unlock=self.unlock,
            person=OFFICER,
        )  # fmt: skip
        self.nodes.append(node)
        return node

    def revoke(self, ledger: Ledger) -> None:
        self.founded.agency.stewardship.revoke(
            ledger.node.identity.node, person=OFFICER, reason="lost", new_epoch=False
        )

    def server_files(self, folder: Path, name: str = "hub", *, days: int = 365, age_days: int = 0) -> None:
        """A server's certificate, key and the certificate that it trusts, as the generator writes them."""
        folder.mkdir(parents=True, exist_ok=True)
        key = Ed25519PrivateKey.from_private_bytes(SystemEntropy().bytes(32))
        chain = issue_server(
            self.founded.issuer.key, self.founded.issuer.certificates, key.public_key().public_bytes_raw(),
            name, ["localhost", "127.0.0.1"], SystemClock().now_ms() - age_days * 86_400_000,
            days=days, entropy=SystemEntropy(),
        )  # fmt: skip
        (folder / "server.pem").write_bytes(certificates_pem(chain))
        (folder / "server.key").write_bytes(private_key_pem(key))
        (folder / "ca.pem").write_bytes(certificates_pem(chain[1:]))

    def close(self) -> None:
        for ledger in [*self.nodes, self.founded.agency]:
            ledger.close()


def login_of(ledger: Ledger) -> Login:
    return Login(ledger.node.keys.signing)


class Heard:
    """What a client was told besides messages."""

    def __init__(self) -> None:
        self.errors: list[str] = []


@asynccontextmanager
async def connected(
    url: str, realm: Realm, login: Login | None, *, heard: Heard | None = None
) -> AsyncIterator[Client]:
    """A client that has logged in; it does not come back by itself."""
    told = heard or Heard()

    async def on_error(error: Exception) -> None:
        told.errors.append(str(error).lower())

    at = urlsplit(url)
    async with session(at.hostname or "", at.port or 0, realm, login, on_error=on_error) as client:
        yield client
