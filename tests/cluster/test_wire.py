"""With TLS off, all that passes on every wire is written down and searched: no identity, no name, no product, no key."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from ledger import Basis, Coded, IssuePrescription, Ledger, Patient, Product, Supply
from ledger.ids import DocumentId
from ledger.persons import NPL_PACK_ID, PERSONAL_NUMBER
from nodes.daemon.service import CLAIM_METHOD, FETCH_METHOD
from nodes.local.client import SharedLedger
from nodes.nats.server import LocalServer
from nodes.requests import Told
from tests.cluster.book import AGREE_SECONDS, agree
from tests.cluster.work import IDENTITIES
from tests.lab.cluster import DISTRICT, Cluster, Member, open_cluster, until
from tests.lab.loops import LoopThread
from tests.lab.ways import Relays

SURNAME, PRODUCT, PACK = "Planterstedt", "Plantoprazol", "20991231100079"
DOSAGE, PURPOSE = "Ta en planterad planterkapsel varje kväll", "planterbesök"
SERVER = 'listen: "127.0.0.1:-1"\nmax_payload: 131072\n'


class Tap:
    """A relay that writes down both directions of every connection, each as the stream that it was."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.streams: list[bytearray] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(near_in, far_out))
                both.create_task(self._carry(far_in, near_out))
        except* OSError:
            pass
        finally:
            far_out.transport.abort()
            near_out.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        stream = bytearray()
        self.streams.append(stream)
        while data := await source.read(65536):
            stream += data
            target.write(data)
            await target.drain()
        raise ConnectionResetError


@contextmanager
def tapped(port: int) -> Iterator[Tap]:
    with LoopThread() as loop:
        tap = Tap(port)
        loop.call(tap.start())
        try:
            yield tap
        finally:
            loop.call(tap.stop())


def forms(secret: bytes) -> set[bytes]:
    """How a secret might stand somewhere: as it is, in hexadecimal, in base 64 wherever it begins, turned round."""
    found = {secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode()}
    for offset in range(3):
        # Without what its neighbours decide: the first and the last characters.
        for encoded in (
            base64.b64encode(bytes(offset) + secret),
            base64.urlsafe_b64encode(bytes(offset) + secret),
        ):
            found.add(encoded[4 if offset else 0 : len(encoded) // 4 * 4 - 4])
    return {form for form in found if len(form) >= FORM_BYTES_MIN}


FORM_BYTES_MIN = 8
"""Shorter ones would be found by chance."""


def text_forms(text: str) -> set[bytes]:
    words = {text, text.upper(), text.lower()}
    if text.isdecimal():
        words |= {f"{text[:8]}-{text[8:]}", text[2:], f"{text[2:8]}-{text[8:]}"}
    return {form for word in words for code in ("utf-8", "utf-16-le") for form in forms(word.encode(code))}


def keys_of(ledger: Ledger, document: DocumentId) -> dict[str, bytes]:
    """The secrets of a node, and of a prescription."""
    node, ring = ledger.node, ledger.node.keyring
    found = {
        "signing": node.keys.signing.private_bytes_raw(),
        "wrapping": node.keys.wrapping.private_bytes_raw(),
        "storage": node._storage_key,
    }
    for district in ring.districts():
        found[f"index of {district}"] = ring.index_key(district)
        for epoch, key in ring.epochs(district):
            found[f"epoch {epoch} of {district}"] = key
            found[f"document in epoch {epoch}"] = ring.document_key(district, epoch, document)
    return found


def issue(cluster: Cluster, pharmacy: Member) -> DocumentId:
    """A prescription in which everything is planted."""
    order = IssuePrescription(
        patient=Patient(name=f"Test {SURNAME}", identifier=Coded(PERSONAL_NUMBER, IDENTITIES[0])),
        product=Product(
            pack=Coded(NPL_PACK_ID, PACK), name=PRODUCT, strength="500 mg", pack_quantity=100
        ),
        dosage=DOSAGE, fills=3, prescriber=cluster["clinic"].person.code, chosen_pharmacy=pharmacy.node,
    )  # fmt: skip
    with cluster["clinic"].ledger() as ledger:
        return ledger.prescribe(order, person=cluster["clinic"].person).document


def work(cluster: Cluster) -> DocumentId:
    """Issue, dispense, claim, and ask another pharmacy for all that a patient has: all that nodes ever say."""
    eken, linden = cluster["eken"], cluster["linden"]
    document = issue(cluster, eken)
    agree(cluster, AGREE_SECONDS)
    with eken.ledger() as ledger:
        ledger.dispense(document, Supply(fill=1, basis=Basis.CUSTODY), person=eken.person)
    with linden.ledger() as ledger:
        assert isinstance(ledger, SharedLedger)
        command = uuid.uuid4().bytes
        told = ledger.ask(CLAIM_METHOD, Told, document=document, fills=[2], command=command, wait_ms=20_000)
        assert not told.code
        ledger.dispense(document, Supply(fill=2, basis=Basis.CUSTODY), person=linden.person)
        patient = Patient(name=f"Test {SURNAME}", identifier=Coded(PERSONAL_NUMBER, IDENTITIES[0]))
        fetched = ledger.ask(
            FETCH_METHOD, Told, holder=eken.node, person=linden.person, purpose=PURPOSE, patient=patient,
            request=uuid.uuid4().bytes, wait_ms=20_000,
        )  # fmt: skip
        assert fetched.documents == (document,)
    agree(cluster, AGREE_SECONDS)
    return document


def test_nothing_of_a_patient_and_no_key_passes_in_clear_with_tls_off(tmp_path: Path) -> None:
    with (
        LocalServer(SERVER, tmp_path / "plain") as server,
        tapped(urlsplit(server.urls[0]).port or 0) as tap,
        open_cluster(Relays.kind, tmp_path / "realm") as cluster,
    ):
        for member in cluster:
            member.configure(url=f"nats://127.0.0.1:{tap.port}")
            member.process.start()
        for member in cluster:
            until(member.up, AGREE_SECONDS, f"the link of {member.name}")
        agree(cluster, AGREE_SECONDS)
        document = work(cluster)
        secrets: dict[str, bytes] = {}
        for member in cluster:
            with member.reading() as ledger:
                issued = ledger.show(document).prescription.issued
                assert issued is not None
                assert SURNAME in issued.patient.name, "what was planted has arrived"
                secrets |= {f"{member.name}: {name}": key for name, key in keys_of(ledger, document).items()}
        logs = b"".join(member.process.log.read_bytes() for member in cluster)
        names = "\n".join(str(path) for path in tmp_path.rglob("*")).encode()
        said = b"".join(json.dumps(msgspec.to_builtins(member.status())).encode() for member in cluster)
    wire = b"\n".join(bytes(stream) for stream in tap.streams)
    print(f"{len(wire)} bytes in {len(tap.streams)} streams; {len(secrets)} keys")
    # What does pass in clear is found: the search works.
    assert len(tap.streams) >= 2 * 4
    assert len(wire) > 20_000
    for subject in (b"live." + DISTRICT.encode(), b"here." + DISTRICT.encode(), b".to."):
        assert subject in wire
    texts = {IDENTITIES[0], SURNAME, PRODUCT, PACK, *DOSAGE.split()[2:4], PURPOSE.split(maxsplit=1)[0]}
    for text in texts:
        for form in text_forms(text):
            for what, where in (("wire", wire), ("logs", logs), ("file names", names), ("status", said)):
                assert form not in where, f"{text} is in {what}"
    for name, key in secrets.items():
        for form in forms(key):
            assert form not in wire, f"{name} is on the wire"
            assert form not in logs, f"{name} is in the logs"


def test_the_search_finds_what_stands_in_other_forms() -> None:
    secret = SURNAME.encode()
    for before in range(3):
        for after in range(3):
            hidden = base64.b64encode(bytes(before) + secret + bytes(after))
            assert any(form in hidden for form in text_forms(SURNAME)), (before, after)
    for hidden in (secret.hex().encode(), SURNAME.upper().encode("utf-16-le"), secret[::-1]):
        assert any(form in b"x" + hidden + b"y" for form in text_forms(SURNAME))
    assert not any(form in b"nothing of the kind" for form in text_forms(SURNAME))
    assert all(len(form) >= FORM_BYTES_MIN for text in (SURNAME, PRODUCT, PACK) for form in text_forms(text))
