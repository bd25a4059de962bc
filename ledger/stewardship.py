"""Acts of the agency and of district authorities: keys, admission, revocation, levels, policy, retention (section 8).

- Governance is one chain with one writer, the agency. What a district authority does, it does by certificate, so that
  a broken computer can be replaced in week two without the agency: no dead end of trust.
- A new epoch's key is wrapped to every unrevoked node of the district, and reaches each through the chain itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from ledger.certificates import issue_node
from ledger.enrolment import (
    DistrictKey,
    EnrolmentPackage,
    EnrolmentRequest,
    WrappedDistrictKey,
    check_request,
    sign_package,
    unwrap_key,
    wrap_district_keys,
    wrap_key,
)
from ledger.errors import NotPermitted, PeerFault
from ledger.events import (
    Event,
    FeedEnd,
    KeyEpochStarted,
    Level,
    NodeAdmitted,
    NodeRevoked,
    Person,
    PolicySet,
    ReadinessDeclared,
    RetentionSet,
    WrappedKey,
)
from ledger.identity import Certified, NodeRole, verify_chain
from ledger.ids import GOVERNANCE, NodeId, district_document
from ledger.node import Node, Receipt
from ledger.policy import Policy, encode_policy
from ledger.store.port import FeedRow

__all__ = ["Issuer", "Stewardship"]

CERTIFICATE_DAYS = 730
"""Two years: renewal happens in peace; dates never decide whether an entry counts."""


class Issuer(Struct, frozen=True):
    """Who certifies: a signing key and its own chain, without the root."""

    key: Ed25519PrivateKey
    certificates: tuple[bytes, ...]


class Stewardship:
    """Governance as one node may exercise it. Thread-safe."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # --- admission --------------------------------------------------------------------------------------------

    def admit(
        self,
        request: EnrolmentRequest,
        *,
        person: Person,
        issuer: Issuer | None = None,
        districts: Sequence[str] = (),
        days: int = CERTIFICATE_DAYS,
        command: bytes | None = None,
    ) -> EnrolmentPackage:
        """Certify a node and hand it the keys of its district (and of `districts`, for the agency or an authority).

        An authority is its own issuer and needs no one else; the agency gives the issuing key. Two halves: `certify` and
        the signature need the issuer's key and nothing of this node's secrets, `announce` the node's and not the issuer's.
        So where another process owns the node's store, that one announces, and the issuing key stays here.

        Raises:
            NotPermitted: this node may not certify that role or district.
        """
        node = self._node
        certificates, issuer_key = self._certified(request, issuer, days)
        keys = self.announce(certificates, person=person, districts=districts, command=command)
        return sign_package(node.realm, certificates, tuple(keys), issuer_key)

    def _certified(
        self, request: EnrolmentRequest, issuer: Issuer | None, days: int
    ) -> tuple[tuple[bytes, ...], Ed25519PrivateKey]:
        """Certificates for who asks, and the key that made them; writes nothing."""
        node = self._node
        check_request(request)
        own = node.identity
        if own.role is NodeRole.AUTHORITY and issuer is None:
            issuer = Issuer(node.keys.signing, own.certificates)
            if request.district != own.district:
                raise NotPermitted("a district authority admits nodes of its own district only")
        if issuer is None:
            raise NotPermitted("only the agency and district authorities admit nodes")
        certificates = issue_node(
            issuer.key, issuer.certificates, request.public_key, request.wrapping_key, request.role,
            request.district, request.name, node.now_ms(), days=days, entropy=node.entropy,
        )  # fmt: skip
        return certificates, issuer.key

    def announce(
        self,
        certificates: Sequence[bytes],
        *,
        person: Person,
        districts: Sequence[str] = (),
        command: bytes | None = None,
    ) -> list[WrappedDistrictKey]:
        """Say in governance that a node was certified (at the agency), and wrap its districts' keys to it.

        Args:
            certificates: the node's chain, the root left out.
            person: who admits.
            districts: others than its home, for the agency or an authority.
            command: repeated, the node is announced once.

        Raises:
            NotAuthentic, Malformed: no certificate of this realm.
            NotPermitted: this node admits nobody, or the node was revoked.
        """
        node = self._node
        certified = verify_chain(node.realm, tuple(certificates))
        wanted = list(dict.fromkeys([*([certified.district] if certified.district else []), *districts]))
        if certified.role is NodeRole.RELAY:
            wanted = []
        with node.lock:
            own = node.identity
            if own.role is NodeRole.AUTHORITY:
                if certified.district != own.district:
                    raise NotPermitted("a district authority admits nodes of its own district only")
            elif own.role is not NodeRole.AGENCY:
                raise NotPermitted("only the agency and district authorities admit nodes")
            if node.reader.governance().revocation(certified.node) is not None:
                raise NotPermitted("the node was revoked", advice="enrol it anew, with new keys")
            if own.role is NodeRole.AGENCY:
                for district in wanted:
                    self.ensure_district(district, person=person)
                self._govern(NodeAdmitted, person, command, certificate=certificates[0])
            return list(
                wrap_district_keys(
                    certified,
                    [DistrictKey(d, e, k) for d in wanted for e, k in node.keyring.epochs(d)],
                    {d: node.keyring.index_key(d) for d in wanted},
                    node.entropy,
                )
            )

    def ensure_district(self, district: str, *, person: Person) -> None:
        """Make the first key of a district, if it has none."""
        node = self._node
        if district in node.keyring.districts():
            return
        key, index = node.entropy.bytes(32), node.entropy.bytes(32)
        with node.new_district_key(district, 1, key):
            node.keyring.add_index(district, index)
            self._govern(KeyEpochStarted, person, None, district=district, epoch=1)

    # --- revocation and keys ------------------------------------------------------------------------------------

    def revoke(
        self, revoked: NodeId, *, person: Person, reason: str, good: Sequence[FeedEnd] | None = None,
        new_epoch: bool = True, command: bytes | None = None,
    ) -> Receipt:  # fmt: skip
        """Revoke a node: what it wrote up to the named ends keeps its authority (default: what is held here).

        Unless told otherwise, every district it could read gets a new key.
        """
        node = self._node
        with node.lock:
            if good is None:
                good = [
                    FeedEnd(row.feed, head.sequence, head.link)
                    for row in node.store.feeds()
                    if self._wrote_or_admitted(revoked, row)
                    for head in node.store.heads(row.feed)
                ]
            started: list[str] = []
            try:
                # All or nothing: repeated after a kill in between, it would return its result with half of it undone.
                with node.transaction():
                    receipt = self._govern(
                        NodeRevoked, person, command, node=revoked, good=tuple(good), reason=reason
                    )
                    if new_epoch and not receipt.repeated:
                        for district in self._districts_of(revoked):
                            self.start_epoch(district, person=person)
                            started.append(district)
            except BaseException:
                for district in started:
                    node.keyring.forget_district(district, node.keyring.newest_epoch(district))
                raise
            return receipt

    def start_epoch(self, district: str, *, person: Person, command: bytes | None = None) -> Receipt:
        """Give a district a new key, wrapped to every unrevoked node that writes in it and to this one."""
        node = self._node
        with node.lock:
            if command is not None and (done := node.first_result(command)) is not None:
                return done
            epoch = node.keyring.newest_epoch(district) + 1
            key = node.entropy.bytes(32)
            wrapped = tuple(
                WrappedKey(
                    reader.node, wrap_key(reader.wrapping_key, key, _context(district, epoch), node.entropy)
                )
                for reader in self._readers(district)
            )
            # One transaction: a key that only this node had would seal what nobody else can read.
            with node.new_district_key(district, epoch, key):
                return self._govern(
                    KeyEpochStarted, person, command, district=district, epoch=epoch, wrapped=wrapped
                )

    def take_epochs(self) -> int:
        """Unwrap the district keys that governance holds for this node; returns how many were new."""
        node, new = self._node, 0
        with node.lock:
            for district, epoch, sealed in node.reader.governance().wrapped(node.identity.node):
                if node.keyring.has(district, epoch):
                    continue
                try:
                    key = unwrap_key(node.keys.wrapping, sealed, _context(district, epoch))
                except PeerFault:
                    continue  # Wrapped for a former key of this node.
                node.keyring.add_district(district, epoch, key)
                new += 1
            if new:
                with node.transaction():
                    node.save_keyring()
        return new

    def _known_nodes(self) -> dict[NodeId, Certified]:
        """Every node that was admitted here or has opened a feed."""
        node = self._node
        known = {node.identity.node: node.identity}
        for row in node.store.feeds():
            certified, _ = node.reader.author(row.feed)
            known[certified.node] = certified
        issuers = node.identity.certificates[1:]
        for opened in node.reader.opened(district_document(GOVERNANCE)):
            event = None if opened.fact is None else opened.fact.event
            if isinstance(event, NodeAdmitted):
                try:
                    certified = verify_chain(node.realm, (event.certificate, *issuers))
                except PeerFault:
                    continue  # Issued under a former issuing certificate: known by its feed, if at all.
                known.setdefault(certified.node, certified)
        return known

    def _wrote_or_admitted(self, who: NodeId, row: FeedRow) -> bool:
        """Whether a feed is a node's, or that of a node which it admitted as a district authority."""
        return row.author == who or self._node.reader.author(row.feed)[0].admitted_by == who

    def _districts_of(self, who: NodeId) -> list[str]:
        """Districts whose key a node holds, as far as known: its home, and where it writes."""
        node = self._node
        districts = {row.district for row in node.store.feeds() if row.author == who}
        certified = self._known_nodes().get(who)
        if certified is not None:
            districts.add(certified.district)
        return sorted(districts & set(node.keyring.districts()))

    def _readers(self, district: str) -> list[Certified]:
        """Whom a district's new key is for: this node, and all that are at home or write there, unrevoked."""
        node = self._node
        governance = node.reader.governance()
        writing = {row.author for row in node.store.feeds(district)}
        return [
            certified
            for who, certified in sorted(self._known_nodes().items())
            if certified.role is not NodeRole.RELAY
            and governance.revocation(who) is None
            and (who == node.identity.node or certified.district == district or who in writing)
        ]

    # --- levels, policy, retention ----------------------------------------------------------------------------------

    def declare(
        self, level: Level, *, person: Person, districts: Sequence[str] = (), command: bytes | None = None
    ) -> Receipt:
        """Declare the readiness level, in some districts or in all."""
        return self._govern(ReadinessDeclared, person, command, declared=level, districts=tuple(districts))

    def set_policy(
        self, policy: Policy, *, person: Person, legal_basis: str = "", command: bytes | None = None
    ) -> Receipt:
        """Put a policy in force. In a production realm emergency supply needs a legal basis."""
        return self._govern(PolicySet, person, command, policy=encode_policy(policy), legal_basis=legal_basis)

    def retire(self, before_month: int, *, person: Person, command: bytes | None = None) -> Receipt:
        """Retire documents issued before a month (`ledger.ids.month_number`)."""
        return self._govern(RetentionSet, person, command, before_month=before_month)

    def _govern(self, kind: type[Event], person: Person, command: bytes | None, **fields: object) -> Receipt:
        node = self._node
        if node.identity.role is not NodeRole.AGENCY:
            raise NotPermitted("only the agency writes governance")
        with node.lock:
            command = command or node.new_command()
            done = node.first_result(command)
            if done is not None:
                return done
            event = kind(person=person, command=command, governance=node.reader.governance().mark, **fields)  # type: ignore[arg-type]
            return node.write(GOVERNANCE, district_document(GOVERNANCE), event)


def _context(district: str, epoch: int) -> bytes:
    return b"epoch\0" + epoch.to_bytes(4, "big") + district.encode()
