"""One peer: the round of reconciliation that is under way with it, what may be sent to it, and what is known of it.

Rounds follow each other as long as they move something, and after that at the peer's interval. Of two rounds begun
at once the one with the lower id goes on. A round in which nothing comes any more is given up; where it broke off, the
next one goes on, later each time that this happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from msgspec import Struct

from ledger.errors import PeerFault
from ledger.identity import NodeRole
from ledger.ids import NodeId
from nodes.flow import WINDOW_BYTES_MIN, Window
from nodes.messages import (
    CREDIT_BYTES_MAX,
    Ack,
    Detached,
    Digest,
    Done,
    Entries,
    Frontier,
    Message,
    Refusal,
    Summary,
    decode_message,
    encode_message,
)
from nodes.ports import Replica
from nodes.promises import Promises, Voice
from nodes.reconciliation import BUDGET_BYTES, Session
from nodes.wire import Speech

__all__ = ["IDLE_MS", "Peer", "Timing"]

CONTROL_MAX = 256
"""Answers waiting to be sent to one peer: more are dropped, and the round goes on in the next one."""
PROBLEMS_MAX = 16
"""Codes of refusals kept for the operator, the latest."""
ENDED_MAX = 64
"""Names of rounds that are over: an opening of one of them that comes late or again must not begin it anew, and be
answered with an opening, and so on. Older ones cost one round more at most."""
NO_ROUND = bytes(8)
FIRST_WINDOW_BYTES = 16 * 1024
"""Under way at first on a link that is not thin: what TCP sends unasked, two seconds at 64 kbit/s."""
AROUND_BYTES = 120
"""What goes around a message on its way: the letter, its subject and NATS' own words. On a thin link two pieces of it are
a tenth of what is under way."""
IDLE_MS = 60_000
"""Between rounds with a peer that was in step."""
AGAIN_MS = 20
"""Between rounds that bring something; doubled with each that does not."""
AWAITED_MS = 1_000
"""Before the next one, where others are about to send what this one might have."""
MISSED_MS = 500
"""After a round that found both in step, if something turned out to be missing meanwhile."""
QUIET_SHARE = 10
"""Of the time after which a round is given up: so long a silence ends one that the peer began and that we are done with."""
BACK_OFF_MS = 2_000
BACK_OFF_MAX_MS = 5 * 60_000
ROUNDS_PER_MINUTE_MAX = 300
"""Rounds that a peer may begin: an honest one with a fast link to catch up over begins some four a second."""
MESSAGES_PER_SECOND_MAX = 1000
"""Taken from one peer: an honest one, with two kilobytes under way over a millisecond, sends so many for a moment."""


class Timing(Struct, frozen=True, kw_only=True):
    """What the slowness of a link asks for."""

    thin: bool = False
    """Below some 64 kbit/s: urgent entries ahead of their feeds, the smallest window, patience."""
    idle_ms: int = IDLE_MS
    give_up_ms: int = 20_000
    budget_bytes: int = BUDGET_BYTES


class _Round:
    """One round with the peer."""

    def __init__(
        self, name: bytes, session: Session, window: Window, mark: int, *, ours: bool, now_ms: int
    ) -> None:
        self.name, self.session, self.window, self.ours = name, session, window, ours
        self.mark = mark
        self.moved_ms = now_ms
        """When something last came in or, for want of an answer, went out."""
        self.answered = False
        """Something came in."""
        self.signed = False
        """The peer gave a sign of life since something last came in."""
        self.number = 0


class Peer:
    """What one node knows of, and has under way with, another. Not thread-safe."""

    def __init__(
        self,
        node: NodeId,
        replica: Replica,
        timing: Timing,
        random: Random,
        stamp: Callable[[], int],
        promises: Promises | None = None,
    ) -> None:
        self.node, self.timing = node, timing
        self._replica, self._random, self._stamp = replica, random, stamp
        self._promises = Voice(promises or Promises(), node)
        self.role: NodeRole | None = None
        self.link = ""
        """The link on which it was last heard."""
        self.heard_ms: int | None = None
        self.in_step_ms: int | None = None
        """When the digests were last equal."""
        self.budget_bytes: int | None = None
        """What may be sent to it in a round, and taken from it, if that is less than at other times."""
        self.missed = False
        """Something turned out to be missing while a round was under way, which may have begun without it."""
        self.partner = True
        """Rounds with it are kept up (`nodes.acquaintances.Acquaintances.chosen`)."""
        self.agreed_ms = 0
        """When a sign of its last said that it holds the same of its district."""
        self.held_back = False
        """No rounds are had with it now, whoever begins one (`hold_back`)."""
        self.stamp = 0
        """Its clock when it was last in step."""
        self.districts: frozenset[str] = frozenset()
        """That it said it holds."""
        self.next_ms: int | None = None
        """When we begin the next round; None: it may, we do not."""
        self.failures = 0
        self.problems: deque[str] = deque(maxlen=PROBLEMS_MAX)
        self.entries_in = self.entries_out = self.bytes_in = self.bytes_out = 0
        self.rounds = 0
        self.mark: int | None = None
        """What we held (`ledger.exchange.Exchange.mark`) when it last held the same; None: never yet."""
        self._round: _Round | None = None
        self._ended: deque[bytes] = deque(maxlen=ENDED_MAX)
        self._signed, self._signed_on = 0, set[str]()
        self._control: deque[Speech] = deque()
        self._restless = 0
        """Rounds in a row that left the two apart and brought us nothing."""
        self._window_size = FIRST_WINDOW_BYTES
        self._allowed, self._allowed_ms = float(MESSAGES_PER_SECOND_MAX), 0
        self._begun: deque[int] = deque(maxlen=ROUNDS_PER_MINUTE_MAX)

    def moved(self) -> tuple[int, int]:
        """Entries that came from it and were new, and entries sent to it, the round under way included."""
        session = None if self._round is None else self._round.session
        return (
            self.entries_in + (0 if session is None else session.received),
            self.entries_out + (0 if session is None else session.sent),
        )

    # --- rounds ----------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """A round is under way, whoever began it: another would break it off."""
        return self._round is not None

    @property
    def in_round(self) -> bool:
        """A round is under way, whoever began it, or something waits to be said."""
        return self._round is not None or bool(self._control)

    @property
    def sending(self) -> bool:
        """There is more to send to it than what goes ahead of everything."""
        return self._round is not None and not self._round.session.idle()

    def begin(self, name: bytes, now_ms: int) -> None:
        """Begin a round of ours, named by 8 random bytes."""
        self.rounds += 1
        current = self._begin(name, now_ms, ours=True)
        self._say(current, current.session.open())

    def hold_back(self, held_back: bool) -> None:
        """Have no more rounds with it, or have them again; one that is under way ends where it is."""
        self.held_back = held_back
        if held_back and self._round is not None:
            self._close(self._round)
            self._control.clear()

    def _begin(self, name: bytes, now_ms: int, *, ours: bool) -> _Round:
        if self._round is not None:
            self._close(self._round)
        self.missed = False
        self._promises.now_ms = now_ms
        credit = CREDIT_BYTES_MAX if self.budget_bytes is None else self.budget_bytes
        session = Session(
            self._replica,
            budget_bytes=min(self.timing.budget_bytes, credit),
            credit_bytes=credit,
            turn=self.rounds,
            urgent_ahead=self.timing.thin,
            common=self.districts,
            stamp=self._stamp,
            promises=self._promises,
        )
        window = Window(WINDOW_BYTES_MIN) if self.timing.thin else Window()
        window.size = max(WINDOW_BYTES_MIN, min(self._window_size, window.ceiling))
        self._round = _Round(name, session, window, self._replica.mark(), ours=ours, now_ms=now_ms)
        return self._round

    def _close(self, round_: _Round) -> None:
        session = round_.session
        self.entries_in += session.received
        self.entries_out += session.sent
        self._window_size = round_.window.size
        self.districts = session.theirs or self.districts
        self.problems.extend(session.problems)
        self._ended.append(round_.name)
        self._promises.end()
        self._round = None

    def signed(self, stamp: int, link: str) -> bool:
        """Whether it gave a sign of life with this stamp before, or a later one; on each link the last one counts once."""
        return stamp < self._signed or (stamp == self._signed and link in self._signed_on)

    def sign(self, stamp: int, link: str) -> None:
        """Note a sign of life."""
        if stamp != self._signed:
            self._signed_on.clear()
        self._signed = stamp
        self._signed_on.add(link)

    def unread(self) -> bool:
        """It cannot have read what we said, since it asks who we are: end a round of ours that it never answered.

        Else the round that it begins once it knows us would have to wait until ours is given up.
        """
        if self._round is None or not self._round.ours or self._round.answered:
            return False
        self._close(self._round)
        self._control.clear()
        return True

    def broke_off(self, now_ms: int) -> bool:
        """It is there: end a round of ours in which nothing has come for a while.

        It was restarted, or the way to it was cut, and it knows nothing of that round: waiting helps nobody. A round that
        is not silent for long enough yet ends when it is (`settle`).
        """
        if self._round is None or not self._is_silent(self._round, now_ms):
            if self._round is not None:
                self._round.signed = self._round.ours
            return False
        self._close(self._round)
        self._control.clear()
        return True

    def allow(self, now_ms: int) -> bool:
        """Whether a message of this peer may be looked at now, or is one of too many."""
        gained = max(0, now_ms - self._allowed_ms) * MESSAGES_PER_SECOND_MAX / 1000
        self._allowed, self._allowed_ms = min(2.0 * MESSAGES_PER_SECOND_MAX, self._allowed + gained), now_ms
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True

    def heard(self, speech: Speech, now_ms: int) -> Message | None:
        """Take in what the peer said. What is no part of a round is given back."""
        try:
            message = decode_message(speech.message)
        except PeerFault as error:
            self.problems.append(error.code)
            self.say(Refusal(error.code), speech.round)
            return None
        if isinstance(message, Ack):
            if self._round is not None and speech.round == self._round.name:
                self._round.moved_ms, self._round.signed = now_ms, False
                self._round.window.answered(message.number, now_ms)
            return None
        if not isinstance(message, Digest | Summary | Frontier | Entries | Detached) and not (
            self._round is not None and speech.round == self._round.name
        ):
            return message
        if self.held_back:
            if isinstance(message, Digest | Summary):
                self.say(Done(), speech.round)  # So that it does not wait for us until it gives up.
            return None
        current = self._round_of(speech.round, message, now_ms)
        if current is None:
            return None
        current.moved_ms, current.answered, current.signed = now_ms, True, False
        self._promises.now_ms = now_ms
        self._say(current, current.session.take_message(message))
        if speech.number:
            self.say(Ack(speech.number), speech.round)
        return None

    def _round_of(self, name: bytes, message: Message, now_ms: int) -> _Round | None:
        """The round that a message belongs to; a peer's new one takes the place of an older, or of ours if it is lower."""
        current = self._round
        if current is not None and (current.name == name or isinstance(message, Entries | Detached)):
            return current  # What was sent in a former round is as good in this one.
        if isinstance(message, Digest | Summary) and name in self._ended:
            return None
        if (
            current is not None
            and current.ours
            and current.name < name
            and not self._is_silent(current, now_ms)
        ):
            return None
        while self._begun and self._begun[0] <= now_ms - 60_000:
            self._begun.popleft()
        if len(self._begun) == ROUNDS_PER_MINUTE_MAX:
            return None
        self._begun.append(now_ms)
        return self._begin(name, now_ms, ours=False)

    def _late(self, current: _Round, now_ms: int) -> bool:
        return now_ms - current.moved_ms > self.timing.give_up_ms

    def _is_silent(self, current: _Round, now_ms: int) -> bool:
        return current.ours and now_ms - current.moved_ms > self._quiet_ms()

    def settle(self, now_ms: int) -> bool:
        """End the round if it is over or given up; True if the peer has just been found in step."""
        current = self._round
        if current is None:
            return False
        session = current.session
        if session.in_step and session.idle() and not self._control:
            self._close(current)
            self.failures = self._restless = 0
            self.in_step_ms, self.stamp = now_ms, max(self.stamp, session.peer_stamp)
            self.mark = current.mark
            if self.missed:
                self.next_ms = now_ms + MISSED_MS
            elif self.partner:
                self.next_ms = now_ms + self._jittered(self.timing.idle_ms)
            else:
                # In a large district everybody would keep up rounds with everybody; its signs say whether one is needed.
                self.next_ms = None
            return True
        if not current.ours and now_ms - current.moved_ms > self._quiet_ms() and self._is_said(current):
            self._close(current)  # Should the peer still have something to say, that begins it anew.
        elif current.signed and self._is_silent(current, now_ms):
            self._close(current)
            self._control.clear()
            self.next_ms = now_ms
        elif self._late(current, now_ms):
            self._close(current)
            if current.ours:
                self.failures += 1
                self.problems.append("no-answer")
                self.later(now_ms)
        elif current.ours and session.peer_done and self._is_said(current):
            self._close(current)
            self.failures = 0
            # What was sent and is still lacking may have been refused: asked for less and less often.
            self._restless = 0 if session.moved or session.peer_has_more else self._restless + 1
            pause = min(self.timing.idle_ms, AGAIN_MS << min(self._restless, 16))
            if session.awaited:
                pause = max(pause, AWAITED_MS)
            self.next_ms = now_ms + pause
        return False

    def _is_said(self, current: _Round) -> bool:
        """All that there was to say is said, and what was sent has been answered."""
        return current.session.idle() and not self._control and current.window.oldest_ms() is None

    def _quiet_ms(self) -> int:
        return self.timing.give_up_ms // QUIET_SHARE

    def later(self, now_ms: int) -> None:
        """Begin again after a pause that doubles with each failure, jittered over its whole length."""
        pause = min(BACK_OFF_MAX_MS, BACK_OFF_MS << min(self.failures, 10))
        self.next_ms = now_ms + self._random.randint(BACK_OFF_MS // 2, pause)

    def soon(self, now_ms: int, within_ms: int = 0) -> int:
        """Begin a round soon, if none is to begin sooner; returns when."""
        at = now_ms + (self._random.randint(0, within_ms) if within_ms else 0)
        self.next_ms = at if self.next_ms is None else min(self.next_ms, at)
        return self.next_ms

    def _jittered(self, ms: int) -> int:
        return ms * self._random.randint(80, 120) // 100

    # --- speaking ----------------------------------------------------------------------------------------------------

    def say(self, message: Message, round_: bytes = NO_ROUND) -> None:
        """Queue a message that goes ahead of everything else; dropped if too many wait."""
        if len(self._control) < CONTROL_MAX:
            self._control.append(Speech(round_, 0, encode_message(message)))

    def _say(self, current: _Round, messages: list[bytes]) -> None:
        for message in messages:
            if len(self._control) < CONTROL_MAX:
                self._control.append(Speech(current.name, 0, message))

    def answers(self) -> list[Speech]:
        """What goes ahead of everything else."""
        out = list(self._control)
        self._control.clear()
        return out

    def piece(self, now_ms: int) -> Speech | None:
        """The next piece of what it lacks, if there is room under way."""
        current = self._round
        if current is None or current.session.idle():
            return None
        room = current.window.room()
        if not room:
            return None
        message = current.session.more(max(1, room - AROUND_BYTES))
        if message is None:
            return None
        if current.session.idle():  # The word that this was all: it needs no answer.
            return Speech(current.name, 0, message)
        current.number += 1
        current.window.sent(current.number, len(message) + AROUND_BYTES, now_ms)
        return Speech(current.name, current.number, message)

    def due_ms(self) -> int | None:
        """When `settle` can next have something to end; None: nothing is under way."""
        current = self._round
        if current is None:
            return None
        over = current.signed or (not current.ours and self._is_said(current))
        return current.moved_ms + (self._quiet_ms() if over else self.timing.give_up_ms) + 1
