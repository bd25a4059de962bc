"""The facts: one frozen struct per event, in the past tense, in a tagged union (section 5 of the design).

- An event is a MessagePack map: ``type`` first, then the fields that differ from their default, in the
  order below. Its bytes are kept and exported verbatim; they are never re-encoded.
- Unknown fields and unknown types are kept and passed on; they mark the document *partly understood*.
- Canonical form: shortest integers, no duplicate keys, no floats, no trailing bytes, depth at most
  `DEPTH_MAX`, at most `EVENT_BYTES_MAX` bytes. Anything else in an authentic entry is a *void event*.
- Every event names the acting person, the command that caused it, and the governance entry and readiness
  level it relied on. Times are milliseconds since 1970 UTC; days are ISO dates of the Swedish calendar.
- Quantities are whole counts of the product's unit (tablets, millilitres, doses), never fractions.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
from msgspec import Meta, Struct

from ledger.errors import InvalidInput, LimitExceeded, Malformed, PeerFault

__all__ = [
    "DEPTH_MAX",
    "EVENT_BYTES_MAX",
    "AccessBlocked",
    "AnomalyResolved",
    "Basis",
    "Coded",
    "ConsentGiven",
    "ControlledClass",
    "Criticality",
    "CustodyDelegated",
    "CustodyDelegationEnded",
    "CustodyRecovered",
    "CustodyTransferred",
    "Dispensed",
    "DispensingCorrected",
    "DispensingReversed",
    "Event",
    "ExternalIdAttached",
    "FeedClosed",
    "FeedEnd",
    "FillKey",
    "FillRight",
    "KeyEpochStarted",
    "Level",
    "NodeAdmitted",
    "NodeRevoked",
    "NotDispensed",
    "Origin",
    "Patient",
    "Person",
    "PersonRole",
    "PolicySet",
    "PrescriptionAmended",
    "PrescriptionCancelled",
    "PrescriptionHeld",
    "PrescriptionIssued",
    "PrescriptionResumed",
    "Product",
    "ReadinessDeclared",
    "RetentionSet",
    "ReversalKind",
    "SupplyLinked",
    "Understood",
    "WrappedKey",
    "decode_event",
    "encode_event",
    "encode_own",
    "event_json",
]

EVENT_BYTES_MAX = 16 * 1024
"""An encoded event: the largest real prescription text is some 3 kB; five times that."""
DEPTH_MAX = 8
"""Nesting of an event's value: ours need four; a peer's newer version may need a few more."""

Bytes16: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes64: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]
GovernanceMark: TypeAlias = Annotated[bytes, Meta(max_length=8)]
Short: TypeAlias = Annotated[str, Meta(max_length=128)]
Text: TypeAlias = Annotated[str, Meta(max_length=2000)]
Day: TypeAlias = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$", min_length=10, max_length=10)]
Millis: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 47)]
Quantity: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]
Fill: TypeAlias = Annotated[int, Meta(ge=1, le=99)]
FILLS_MAX = 99


class PersonRole(StrEnum):
    """In what capacity a person acts."""

    PRESCRIBER = "prescriber"
    PHARMACIST = "pharmacist"
    OFFICER = "officer"
    """Of the agency or of a district authority."""
    OPERATOR = "operator"
    """Who answers for an automatic act, such as the nightly custody plan."""


class Origin(StrEnum):
    """How a fact first came to be written down."""

    ELECTRONIC = "electronic"
    PAPER = "paper"
    TELEPHONE = "telephone"
    REGISTER = "register"
    """Copied from the national register."""


class Basis(StrEnum):
    """What a supply rests on, from strongest to weakest (R7, R8)."""

    CUSTODY = "custody"
    BEARER = "bearer"
    EMERGENCY = "emergency"


class ControlledClass(StrEnum):
    """Swedish schedules of narcotics (förteckning II–V); ``none`` for all other medicines."""

    NONE = "none"
    II = "II"
    III = "III"
    IV = "IV"
    V = "V"


class Criticality(StrEnum):
    """What a missed fill does to the patient; decides policy and lane."""

    LIFE_SUSTAINING = "life-sustaining"
    ORDINARY = "ordinary"


class Level(StrEnum):
    """Readiness level of the realm or of one district, from best to worst."""

    NORMAL = "normal"
    STRAINED = "strained"
    CRISIS = "crisis"
    MINIMUM = "minimum"


class ReversalKind(StrEnum):
    """*Backa* before hand-over, *kreditera* after it."""

    BEFORE_HANDOVER = "backa"
    AFTER_HANDOVER = "kreditera"


class Coded(Struct, frozen=True, array_like=True):
    """A code and the system it belongs to, so that foreign identifiers fit."""

    system: Short
    code: Short


class Person(Struct, frozen=True, array_like=True):
    """Who acted: a code of the profession's register and the capacity."""

    code: Coded
    role: PersonRole


class Patient(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The patient: an identity number, or birth date and sex when there is none."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    identifier: Coded | None = None
    birth_date: Day | None = None
    sex: Annotated[str, Meta(pattern=r"^(male|female|other|unknown)(?!\s)$")] | None = None


class Product(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A medicine as it stands on the prescription, or as it was handed over."""

    pack: Coded
    """NPL pack id, or a foreign pack or product code."""
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    atc: Annotated[str, Meta(max_length=16)] = ""
    form: Short = ""
    strength: Short = ""
    pack_quantity: Quantity = 1
    """Units in one pack."""
    unit: Short = "st"


class FillKey(Struct, frozen=True, array_like=True):
    """Public half (32 bytes, Ed25519) of the bearer key of one fill."""

    fill: Fill
    public_key: Bytes32


class FillRight(Struct, frozen=True, array_like=True):
    """The custody of one fill, named by the act it rests on: what an act spends is (rests_on, document, fill)."""

    fill: Fill
    rests_on: Bytes32


class FeedEnd(Struct, frozen=True, array_like=True):
    """A position in a feed: sequence number and link."""

    feed: Bytes16
    sequence: Annotated[int, Meta(ge=0, lt=1 << 53)]
    link: Bytes32


class WrappedKey(Struct, frozen=True, array_like=True):
    """A district key of an epoch, wrapped to one node (`ledger.enrolment.wrap_key`)."""

    node: Bytes16
    sealed: Annotated[bytes, Meta(max_length=256)]


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What all events have in common."""

    lane: ClassVar[int] = 2
    """Replication priority: 0 stop and custody, 1 supplies and life-sustaining prescriptions, 2 the rest."""

    person: Person
    command: Bytes16
    """Id chosen by the caller: repeating a command has one effect (R17)."""
    governance: GovernanceMark = b""
    """First eight bytes of the link of the newest governance entry the author held; empty if none."""
    level: Level = Level.NORMAL
    happened: Millis | None = None
    """When it happened, if it was recorded later (*efterregistrering*); else the entry's stamp says."""
    origin: Origin = Origin.ELECTRONIC
    comment: Text = ""


class PrescriptionIssued(Event, frozen=True, kw_only=True, tag="PrescriptionIssued"):
    """A prescription came to be: founds its document."""

    nonce: Bytes16
    district: Short
    issued: Day
    patient: Patient
    product: Product
    dosage: Text
    fills: Fill
    packs_per_fill: Annotated[int, Meta(ge=1, le=1000)] = 1
    interval_days: Annotated[int, Meta(ge=0, le=3660)] = 0
    """Shortest time between two fills; 0: none prescribed."""
    valid_from: Day | None = None
    valid_until: Day
    first_fill_before: Day | None = None
    substitution: bool = True
    controlled: ControlledClass = ControlledClass.NONE
    criticality: Criticality = Criticality.ORDINARY
    prescriber: Coded
    """Prescriber's code (*förskrivarkod*); differs from `person` when a pharmacy registers paper."""
    workplace: Short = ""
    holder: Bytes16 | None = None
    """The feed that first holds every fill; None with `bearer_keys`, or when the fills carry no custody."""
    bearer_keys: tuple[FillKey, ...] = ()
    chosen_pharmacy: Bytes16 | None = None
    """Node id of the pharmacy that the patient chose: where the custody plan puts fills."""
    order_serial: Short = ""
    """Serial of the order, printed on paper: the exact key for duplicates of one order."""
    replaces: Bytes16 | None = None
    """Document that this one replaces (cancel and reissue)."""
    replaced_heads: tuple[Bytes32, ...] = ()
    """Heads of the replaced document as the author knew them."""
    external_id: Coded | None = None


class PrescriptionAmended(Event, frozen=True, kw_only=True, tag="PrescriptionAmended"):
    """Dosage or instructions changed; everything else is cancel and reissue."""

    dosage: Text | None = None
    instructions: Text | None = None


class PrescriptionHeld(Event, frozen=True, kw_only=True, tag="PrescriptionHeld"):
    """Parked: nothing may be supplied on it until it is resumed."""

    lane: ClassVar[int] = 0
    reason: Text = ""


class PrescriptionResumed(Event, frozen=True, kw_only=True, tag="PrescriptionResumed"):
    """Ends the holds in its causal past, and only those."""

    lane: ClassVar[int] = 0


class PrescriptionCancelled(Event, frozen=True, kw_only=True, tag="PrescriptionCancelled"):
    """Final. Reason as the register codes it: 1 wrong patient, 2 wrong medicine, 3 discontinued, 4 other."""

    lane: ClassVar[int] = 0
    reason: Annotated[int, Meta(ge=1, le=4)] = 4


class CustodyTransferred(Event, frozen=True, kw_only=True, tag="CustodyTransferred"):
    """The holding feed passed fills on: to a feed, or to the bearer of keys (then `to` is None)."""

    lane: ClassVar[int] = 0
    fills: Annotated[tuple[FillRight, ...], Meta(min_length=1, max_length=FILLS_MAX)]
    to: Bytes16 | None = None
    bearer_keys: tuple[FillKey, ...] = ()


class CustodyRecovered(Event, frozen=True, kw_only=True, tag="CustodyRecovered"):
    """The agency found the holder dead: the fills may be supplied with risk from now on; confers no custody."""

    lane: ClassVar[int] = 0
    fills: Annotated[tuple[Fill, ...], Meta(min_length=1, max_length=FILLS_MAX)]
    reason: Text


class Dispensed(Event, frozen=True, kw_only=True, tag="Dispensed"):
    """Medicine was handed over. A physical fact: it counts whatever else is missing (R9)."""

    lane: ClassVar[int] = 1
    fill: Fill
    quantity: Quantity
    """Units deducted from the prescription."""
    product: Product | None = None
    """What was handed over, if it is not the prescribed product."""
    basis: Basis
    rests_on: Bytes32 | None = None
    """The act that gave the right spent here; None for an emergency supply."""
    bearer_signature: Bytes64 | None = None
    """By the fill's bearer key over `ledger.custody.bearer_message(document, fill, feed)`."""
    part: bool = False
    """More of this fill is owed: on custody, the rest stays with this feed."""
    pharmacy: Coded | None = None
    reason: Text = ""
    patient: Patient | None = None
    """Only where the prescription is not held: whom the supply was for."""


class NotDispensed(Event, frozen=True, kw_only=True, tag="NotDispensed"):
    """The pharmacist refused or could not supply; changes no quantity."""

    fill: Fill
    reason: Text


class DispensingReversed(Event, frozen=True, kw_only=True, tag="DispensingReversed"):
    """By the registering node only: nothing was handed over, or it came back. Not itself reversible."""

    lane: ClassVar[int] = 1
    supply: Bytes32
    kind: ReversalKind
    reason: Text = ""


class DispensingCorrected(Event, frozen=True, kw_only=True, tag="DispensingCorrected"):
    """By the registering node only: the quantity deducted was another."""

    lane: ClassVar[int] = 1
    supply: Bytes32
    quantity: Quantity
    reason: Text = ""


class ExternalIdAttached(Event, frozen=True, kw_only=True, tag="ExternalIdAttached"):
    """The id that the national register (or another system) gave to this prescription."""

    external_id: Coded


class SupplyLinked(Event, frozen=True, kw_only=True, tag="SupplyLinked"):
    """A supply made without known prescription belongs to this one: counts here as an emergency supply."""

    lane: ClassVar[int] = 1
    supply: Bytes32
    document: Bytes16
    entry_key: Bytes32
    fill: Fill
    quantity: Quantity
    """Of the supply, in this product's unit; judged by the linking person."""


class AccessBlocked(Event, frozen=True, kw_only=True, tag="AccessBlocked"):
    """*Spärr*: filters reads by purpose, never what dispensing needs."""

    purposes: Annotated[tuple[Short, ...], Meta(min_length=1, max_length=8)]


class ConsentGiven(Event, frozen=True, kw_only=True, tag="ConsentGiven"):
    """The patient consented to the named purposes, which lifts the blocks in its causal past."""

    purposes: Annotated[tuple[Short, ...], Meta(min_length=1, max_length=8)]


class AnomalyResolved(Event, frozen=True, kw_only=True, tag="AnomalyResolved"):
    """A human decided what an anomaly means; it stays on record."""

    anomaly: Bytes16
    decision: Text


class CustodyDelegated(Event, frozen=True, kw_only=True, tag="CustodyDelegated"):
    """In the district's document: everything this feed holds or will be named for is moved to another feed."""

    lane: ClassVar[int] = 0
    to: Bytes16


class CustodyDelegationEnded(Event, frozen=True, kw_only=True, tag="CustodyDelegationEnded"):
    """By the delegate only: what it has not spent goes back."""

    lane: ClassVar[int] = 0
    delegation: Bytes32


class FeedClosed(Event, frozen=True, kw_only=True, tag="FeedClosed"):
    """A feed's own last entry: names the one successor of everything unspent or later named."""

    lane: ClassVar[int] = 0
    successor: Bytes16


class NodeAdmitted(Event, frozen=True, kw_only=True, tag="NodeAdmitted"):
    """A node's certificate (X.509, DER) was issued; information, since the certificate itself admits."""

    lane: ClassVar[int] = 0
    certificate: Annotated[bytes, Meta(max_length=4096)]


class NodeRevoked(Event, frozen=True, kw_only=True, tag="NodeRevoked"):
    """The node lost its authority but for what stands at or before the named ends of its feeds."""

    lane: ClassVar[int] = 0
    node: Bytes16
    good: Annotated[tuple[FeedEnd, ...], Meta(max_length=4096)] = ()
    reason: Text = ""


class KeyEpochStarted(Event, frozen=True, kw_only=True, tag="KeyEpochStarted"):
    """A district has a new key: seal with this epoch from now on."""

    lane: ClassVar[int] = 0
    district: Short
    epoch: Annotated[int, Meta(ge=1, lt=1 << 31)]
    wrapped: Annotated[tuple[WrappedKey, ...], Meta(max_length=4096)] = ()


class ReadinessDeclared(Event, frozen=True, kw_only=True, tag="ReadinessDeclared"):
    """The level now in force in the named districts; in all if none is named. It stands in `declared`."""

    lane: ClassVar[int] = 0
    declared: Level
    districts: tuple[Short, ...] = ()


class PolicySet(Event, frozen=True, kw_only=True, tag="PolicySet"):
    """The policy now in force, as `ledger.guard.Policy` in MessagePack, and the law it rests on."""

    lane: ClassVar[int] = 0
    policy: Annotated[bytes, Meta(max_length=EVENT_BYTES_MAX)]
    legal_basis: Text = ""


class RetentionSet(Event, frozen=True, kw_only=True, tag="RetentionSet"):
    """Documents issued before this month (`ledger.ids.month_number`) are retired."""

    lane: ClassVar[int] = 0
    before_month: Annotated[int, Meta(ge=1, lt=1 << 16)]


_KINDS: tuple[type[Event], ...] = (
    PrescriptionIssued, PrescriptionAmended, PrescriptionHeld, PrescriptionResumed, PrescriptionCancelled,
    CustodyTransferred, CustodyRecovered, Dispensed, NotDispensed, DispensingReversed, DispensingCorrected,
    ExternalIdAttached, SupplyLinked, AccessBlocked, ConsentGiven, AnomalyResolved,
    CustodyDelegated, CustodyDelegationEnded, FeedClosed,
    NodeAdmitted, NodeRevoked, KeyEpochStarted, ReadinessDeclared, PolicySet, RetentionSet,
)  # fmt: skip
KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in _KINDS}
"""Every event kind by its name on the wire."""

_encoder = msgspec.msgpack.Encoder()
_generic = msgspec.msgpack.Decoder()
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: msgspec.msgpack.Decoder(kind) for name, kind in KINDS.items()
}
_fields: dict[str, frozenset[str]] = {
    name: frozenset(kind.__struct_fields__) | {"type"} for name, kind in KINDS.items()
}


class Understood(Struct, frozen=True):
    """A decoded event and whether all of it was understood.

    `event` is None for an unknown kind. `kind` is the name on the wire.
    """

    kind: str
    event: Event | None
    whole: bool


def encode_event(event: Event) -> bytes:
    """The canonical bytes of an event."""
    # A struct with omitted defaults is written with a wide map header: the plain map has the shortest one.
    return _encoder.encode(_generic.decode(_encoder.encode(event)))


def encode_own(event: Event) -> bytes:
    """The bytes of an event that this node is about to sign: what is signed cannot be taken back.

    Raises:
        InvalidInput: a field is out of the bounds that every reader checks; it would be void everywhere.
    """
    if not event.person.code.code.strip():
        raise InvalidInput("person: every event names who acts; the code is empty")
    try:
        data = encode_event(event)
        decode_event(data)
    except (PeerFault, OverflowError, ValueError) as error:
        message = error.message if isinstance(error, PeerFault) else "a value cannot be written down"
        raise InvalidInput(message) from error
    return data


def _check_plain(value: object, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise LimitExceeded(f"an event is nested deeper than {DEPTH_MAX}")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise Malformed("a key in an event is not text")
            _check_plain(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, depth + 1)
    elif not (value is None or isinstance(value, str | bytes | bool | int)):
        raise Malformed("an event holds a value that is not text, bytes, boolean, integer, list or map")


def decode_event(data: bytes) -> Understood:
    """Decode and check the canonical form.

    Raises:
        LimitExceeded: larger than `EVENT_BYTES_MAX` or deeper than `DEPTH_MAX`.
        Malformed: not MessagePack, not canonical, or a known kind with a missing or ill-typed field.
    """
    if len(data) > EVENT_BYTES_MAX:
        raise LimitExceeded(f"an event of {len(data)} bytes; at most {EVENT_BYTES_MAX} are allowed")
    try:
        value = _generic.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Malformed("an event is not valid MessagePack") from error
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise Malformed("an event is not a map with a type")
    _check_plain(value, 1)
    if _encoder.encode(value) != data:
        raise Malformed("an event is not in canonical form")
    kind: str = value["type"]
    if kind not in _decoders:
        return Understood(kind, None, whole=False)
    try:
        event: Event = _decoders[kind].decode(data)
    except msgspec.MsgspecError as error:
        raise Malformed(f"{kind}: {_without_values(str(error))}") from error
    return Understood(kind, event, whole=_fields[kind].issuperset(value))


def _without_values(message: str) -> str:
    """msgspec names the path and the expected type; it quotes invalid enum values, which we drop (R13)."""
    return message if "value" not in message else "a field holds a value that is not allowed"


def event_json(data: bytes) -> str:
    """The event as JSON text (bytes as base64), for the Automerge document and for people. Unknown fields included."""
    return msgspec.json.encode(_generic.decode(data)).decode()
