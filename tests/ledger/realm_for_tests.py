"""A realm with agency, district authority and a few nodes, made alike in every test that needs one."""

from __future__ import annotations

from ledger.certificates import create_issuing, create_root, issue_node
from ledger.entropy import SeededEntropy
from ledger.identity import Certified, NodeKeys, NodeRole, Realm, RealmKind, verify_chain

NOW_MS = 1_795_500_000_000
STOCKHOLM, UPPSALA = "SE-AB-0180", "SE-C-0380"
DAY_MS = 86_400_000


class RealmForTests:
    """Root, issuing certificate, and a way to certify anybody."""

    def __init__(self, seed: int = 1, kind: RealmKind = RealmKind.EXERCISE) -> None:
        self.entropy = SeededEntropy(seed)
        self.root, self.issuing = self.keys(), self.keys()
        der = create_root(self.root.signing, "Övningsriket", kind, NOW_MS, entropy=self.entropy)
        self.realm = Realm.from_certificate(der)
        self.issuing_chain = create_issuing(
            self.root.signing, der, self.issuing.public_key, NOW_MS, entropy=self.entropy
        )

    def keys(self) -> NodeKeys:
        """Fresh keys."""
        return NodeKeys.generate(self.entropy)

    def chain(
        self,
        keys: NodeKeys,
        role: NodeRole,
        district: str,
        name: str = "Apoteket Eken",
        *,
        by: tuple[NodeKeys, tuple[bytes, ...]] | None = None,
        days: int = 730,
    ) -> tuple[bytes, ...]:
        """Certify keys; by the agency unless told otherwise."""
        issuer, above = by or (self.issuing, self.issuing_chain)
        return issue_node(
            issuer.signing, above, keys.public_key, keys.wrapping_key, role, district, name, NOW_MS,
            days=days, entropy=self.entropy,
        )  # fmt: skip

    def authority(self, district: str = STOCKHOLM) -> tuple[NodeKeys, tuple[bytes, ...]]:
        """A district authority: its keys and chain."""
        keys = self.keys()
        return keys, self.chain(keys, NodeRole.AUTHORITY, district, "Region Stockholm")

    def certified(self, role: NodeRole, district: str) -> tuple[NodeKeys, Certified]:
        """A node certified by the agency."""
        keys = self.keys()
        return keys, verify_chain(self.realm, self.chain(keys, role, district))
