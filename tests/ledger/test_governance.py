"""Governance: a function of the set of its entries, whoever sent them first and whatever the clocks said."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.events import (
    Coded,
    Event,
    FeedEnd,
    KeyEpochStarted,
    Level,
    NodeAdmitted,
    NodeRevoked,
    Person,
    PersonRole,
    PolicySet,
    PrescriptionCancelled,
    ReadinessDeclared,
    RetentionSet,
    WrappedKey,
)
from ledger.governance import GovernanceEntry, GovernanceView, fold_governance
from ledger.identity import NodeRole
from ledger.ids import FeedId, Link, NodeId, tagged_hash

PERSON = Person(Coded("legitimationskod", "900001"), PersonRole.OFFICER)
AGENCY, SECOND, PHARMACY, OTHER = (NodeId(bytes([n]) * 16) for n in range(1, 5))
# In the order of their ids, so that a tie that is broken by id is seen to be.
A, B, C = (FeedId(bytes([n]) * 16) for n in (0x30, 0x20, 0x10))
STOCKHOLM, UPPSALA = "SE-AB-0180", "SE-C-0380"


def link(feed: FeedId, sequence: int, branch: str = "") -> Link:
    return Link(tagged_hash("test entry", feed, b"%d" % sequence, branch.encode()))


def mark(feed: FeedId, sequence: int, branch: str = "") -> bytes:
    return link(feed, sequence, branch)[:8]


def event(kind: type[Event], cites: bytes = b"", **fields) -> Event:
    return kind(person=PERSON, command=bytes(16), governance=cites, **fields)


def entry(
    what: Event | None, sequence: int, feed: FeedId = A, *, author: NodeId = AGENCY, branch: str = "",
    role: NodeRole = NodeRole.AGENCY, stamp: int | None = None,
) -> GovernanceEntry:  # fmt: skip
    return GovernanceEntry(
        id=link(feed, sequence, branch), feed=feed, branch=len(branch), sequence=sequence,
        stamp=sequence if stamp is None else stamp, author=author, role=role,
        kind=type(what).__name__ if what else "SomethingNewer", event=what,
    )  # fmt: skip


def declare(level: Level, *districts: str, cites: bytes = b"") -> Event:
    return event(ReadinessDeclared, cites, declared=level, districts=districts)


def policy(text: bytes, cites: bytes = b"") -> Event:
    return event(PolicySet, cites, policy=text, legal_basis="SFS 2026:1")


def retire(month: int) -> Event:
    return event(RetentionSet, before_month=month)


def revoke(node: NodeId, *good: tuple[FeedId, int], cites: bytes = b"") -> Event:
    ends = tuple(FeedEnd(feed, sequence, link(feed, sequence)) for feed, sequence in good)
    return event(NodeRevoked, cites, node=node, good=ends)


def start(district: str, epoch: int, *wrapped: tuple[NodeId, bytes]) -> Event:
    return event(
        KeyEpochStarted, district=district, epoch=epoch, wrapped=tuple(WrappedKey(n, s) for n, s in wrapped)
    )


def shown(view: GovernanceView) -> tuple[object, ...]:
    """Everything that a view answers."""
    return msgspec.structs.astuple(view)


# --- one chain ------------------------------------------------------------------------------------------------


def test_nothing_decided_is_normal():
    view = fold_governance([], {})
    assert (view.mark, view.policy, view.retired_before, view.admitted, view.refused) == (
        b"",
        None,
        0,
        (),
        (),
    )
    assert view.level(STOCKHOLM) is Level.NORMAL
    assert view.epoch(STOCKHOLM) == 1
    assert view.position(b"") == 0
    assert view.position(mark(A, 1)) is None
    assert view.revocation(PHARMACY) is None
    assert list(view.wrapped(PHARMACY)) == []


def test_positions_count_along_the_chain_from_one():
    view = fold_governance([entry(retire(n), n) for n in (3, 1, 2)], {})
    assert [view.position(mark(A, n)) for n in (1, 2, 3)] == [1, 2, 3]
    assert view.mark == mark(A, 3)
    assert view.position(b"\0" * 8) is None


def test_the_last_policy_counts():
    view = fold_governance([entry(policy(b"old"), 1), entry(policy(b"new"), 2)], {})
    assert view.policy == (b"new", "SFS 2026:1")


def test_a_level_for_all_overrides_levels_for_some_and_the_other_way_round():
    chain = [
        entry(declare(Level.CRISIS, STOCKHOLM), 1),
        entry(declare(Level.STRAINED), 2),
        entry(declare(Level.MINIMUM, UPPSALA), 3),
    ]
    view = fold_governance(chain, {})
    assert [view.level(d) for d in (STOCKHOLM, UPPSALA, "elsewhere")] == [
        Level.STRAINED, Level.MINIMUM, Level.STRAINED,
    ]  # fmt: skip
    assert fold_governance(chain[:1], {}).level(UPPSALA) is Level.NORMAL


def test_retention_only_grows():
    assert fold_governance([entry(retire(24_300), 1), entry(retire(24_100), 2)], {}).retired_before == 24_300


def test_epochs_only_grow_and_every_key_reaches_its_node():
    chain = [
        entry(start(STOCKHOLM, 1), 1),
        entry(start(STOCKHOLM, 2, (PHARMACY, b"two"), (OTHER, b"theirs")), 2),
        entry(start(STOCKHOLM, 3, (PHARMACY, b"three")), 3),
        entry(start(UPPSALA, 2, (PHARMACY, b"u")), 4),
    ]
    view = fold_governance(chain, {})
    assert (view.epoch(STOCKHOLM), view.epoch(UPPSALA)) == (3, 2)
    assert list(view.wrapped(PHARMACY)) == [
        (STOCKHOLM, 2, b"two"),
        (STOCKHOLM, 3, b"three"),
        (UPPSALA, 2, b"u"),
    ]
    assert list(view.wrapped(OTHER)) == [(STOCKHOLM, 2, b"theirs")]


def test_admissions_are_listed():
    chain = [entry(event(NodeAdmitted, certificate=c), n) for n, c in enumerate((b"one", b"two"), 1)]
    assert fold_governance(chain, {}).admitted == (b"one", b"two")


def test_what_is_not_understood_keeps_its_place():
    """A newer node's marks count entries that this one does not understand."""
    view = fold_governance([entry(None, 1), entry(policy(b"p"), 2), entry(None, 3)], {})
    assert view.position(mark(A, 2)) == 2
    assert view.mark == mark(A, 3)


def test_an_event_of_care_decides_nothing_here():
    view = fold_governance([entry(event(PrescriptionCancelled), 1)], {})
    assert (view.policy, view.retired_before) == (None, 0)


# --- one writer -----------------------------------------------------------------------------------------------

EVERYTHING = [
    policy(b"p"), retire(24_000), declare(Level.MINIMUM), start(STOCKHOLM, 9, (PHARMACY, b"k")),
    revoke(PHARMACY), event(NodeAdmitted, certificate=b"c"),
]  # fmt: skip


@pytest.mark.parametrize("role", [r for r in NodeRole if r is not NodeRole.AGENCY])
def test_only_the_agency_governs(role):
    """Entries of others change nothing at all, not even the digest; they are listed."""
    own = [entry(policy(b"ours"), 1), entry(declare(Level.STRAINED), 2)]
    others = [entry(what, n, B, author=OTHER, role=role) for n, what in enumerate(EVERYTHING, 1)]
    view, alone = fold_governance(own + others, {}), fold_governance(own, {})
    assert view.refused == tuple(sorted(e.id for e in others))
    assert shown(msgspec.structs.replace(view, refused=())) == shown(alone)
    assert view.digest() == alone.digest()
    assert view.position(mark(B, 1)) is None


# --- several feeds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stamps", [(5, 50), (50, 5), (5, 5)])
@pytest.mark.parametrize("feeds", [(A, B), (B, A)])
def test_a_new_incarnation_follows_the_old_one_whatever_the_clocks_say(stamps, feeds):
    """Also when the old one's clock ran years ahead: what it cites decides, not its stamp or id (R5)."""
    old, new = feeds
    chain = [
        entry(policy(b"old"), 1, old, stamp=stamps[0]),
        entry(declare(Level.CRISIS), 2, old, stamp=stamps[0]),
        entry(policy(b"new", mark(old, 2)), 1, new, stamp=stamps[1]),
    ]
    view = fold_governance(chain, {})
    assert view.policy == (b"new", "SFS 2026:1")
    assert view.mark == mark(new, 1)
    assert [view.position(mark(f, n)) for f, n in ((old, 1), (old, 2), (new, 1))] == [1, 2, 3]


@pytest.mark.parametrize("feeds", list(permutations((A, B, C))))
def test_three_incarnations_follow_one_another(feeds):
    first, second, third = feeds
    chain = [
        entry(policy(b"1"), 1, first),
        entry(policy(b"2", mark(first, 1)), 1, second),
        entry(policy(b"3", mark(second, 1)), 1, third),
    ]
    assert fold_governance(chain, {}).policy == (b"3", "SFS 2026:1")


@pytest.mark.parametrize("feeds", [(A, B), (B, A)])
def test_a_node_that_revokes_its_predecessor_follows_it(feeds):
    """Even if it knew nothing of its chain: a stolen agency is replaced by the root's next one."""
    old, new = feeds
    chain = [
        entry(policy(b"old"), 1, old),
        entry(policy(b"new"), 1, new, author=SECOND),
        entry(revoke(AGENCY, (old, 1)), 2, new, author=SECOND),
    ]
    assert fold_governance(chain, {}).policy == (b"new", "SFS 2026:1")


# --- revocation -----------------------------------------------------------------------------------------------


def test_a_revocation_says_since_when_and_what_stays_good():
    view = fold_governance([entry(policy(b"p"), 1), entry(revoke(PHARMACY, (B, 7)), 2)], {})
    revocation = view.revocation(PHARMACY)
    assert revocation is not None
    assert revocation.position == 2
    assert dict(revocation.good) == {B: (7, link(B, 7))}
    assert view.revocation(OTHER) is None


def test_of_several_revocations_the_strictest_counts():
    """Since the first; good is what all of them call good."""
    chain = [
        entry(revoke(PHARMACY, (B, 7), (C, 3)), 1),
        entry(revoke(PHARMACY, (B, 9)), 2),
    ]
    for some in permutations(chain):
        revocation = fold_governance(some, {}).revocation(PHARMACY)
        assert revocation is not None
        assert revocation.position == 1
        assert dict(revocation.good) == {B: (7, link(B, 7))}


def test_two_ends_of_one_feed_leave_the_lower():
    revocation = fold_governance([entry(revoke(PHARMACY, (B, 9), (B, 4)), 1)], {}).revocation(PHARMACY)
    assert revocation is not None
    assert dict(revocation.good) == {B: (4, link(B, 4))}


def test_a_revoked_agency_keeps_what_is_called_good_and_no_more():
    old = [entry(policy(b"good"), 1, A), entry(policy(b"stolen"), 2, A), entry(retire(24_999), 3, A)]
    stolen_feed = [entry(declare(Level.MINIMUM, cites=mark(B, 1)), 1, C)]
    new = [entry(revoke(AGENCY, (A, 1), cites=mark(A, 1)), 1, B, author=SECOND)]
    view = fold_governance(old + stolen_feed + new, {})
    assert view.policy == (b"good", "SFS 2026:1")
    assert view.retired_before == 0
    assert view.level(STOCKHOLM) is Level.NORMAL


def test_two_that_revoke_each_other_are_both_revoked():
    chain = [
        entry(policy(b"first"), 1, A),
        entry(revoke(SECOND), 2, A),
        entry(policy(b"second"), 1, B, author=SECOND),
        entry(revoke(AGENCY), 2, B, author=SECOND),
    ]
    for some in permutations(chain):
        view = fold_governance(some, {})
        assert view.revocation(AGENCY) is not None
        assert view.revocation(SECOND) is not None
        assert view.policy is None


def test_a_third_governs_after_two_revoked_each_other():
    chain = [
        entry(revoke(SECOND), 1, A),
        entry(revoke(AGENCY), 1, B, author=SECOND),
        entry(policy(b"third"), 1, C, author=OTHER),
        entry(revoke(AGENCY), 2, C, author=OTHER),
        entry(revoke(SECOND), 3, C, author=OTHER),
    ]
    view = fold_governance(chain, {})
    assert view.policy == (b"third", "SFS 2026:1")
    assert view.mark == mark(C, 3)


# --- forks ----------------------------------------------------------------------------------------------------


def test_of_a_forked_feed_what_takes_away_counts_from_every_branch():
    chain = [
        entry(policy(b"before"), 1),
        entry(policy(b"left"), 2, branch="l"),
        entry(revoke(PHARMACY), 3, branch="l"),
        entry(declare(Level.MINIMUM), 2, branch="r"),
        entry(revoke(OTHER), 3, branch="r"),
        entry(retire(24_000), 4, branch="r"),
        entry(start(STOCKHOLM, 5, (PHARMACY, b"k")), 5, branch="r"),
    ]
    view = fold_governance(chain, {A: 2})
    assert view.forked
    assert view.policy == (b"before", "SFS 2026:1")
    assert view.level(STOCKHOLM) is Level.NORMAL
    assert view.epoch(STOCKHOLM) == 1
    assert list(view.wrapped(PHARMACY)) == []
    assert view.revocation(PHARMACY) is not None
    assert view.revocation(OTHER) is not None
    assert view.retired_before == 24_000


def test_a_new_feed_governs_after_a_fork():
    chain = [
        entry(policy(b"before"), 1),
        entry(policy(b"left"), 2, branch="l"),
        entry(policy(b"right"), 2, branch="r"),
        entry(policy(b"after", mark(A, 1)), 1, B),
    ]
    assert fold_governance(chain, {A: 2}).policy == (b"after", "SFS 2026:1")


def test_a_fork_of_another_feed_changes_nothing():
    chain = [entry(policy(b"p"), 1)]
    assert shown(fold_governance(chain, {C: 1})) == shown(fold_governance(chain, {}))


# --- a function of the set ------------------------------------------------------------------------------------

NODES = {A: AGENCY, B: AGENCY, C: SECOND}
MARKS = [b"", *(mark(f, n, b) for f in (A, B, C) for n in range(1, 4) for b in ("", "x"))]


@st.composite
def soups(draw: st.DrawFn) -> tuple[list[GovernanceEntry], dict[FeedId, int]]:
    """Entries such as cheats, clocks and partial delivery may leave: gaps, forks, circles of citations."""
    district = st.sampled_from([STOCKHOLM, UPPSALA])
    level = st.sampled_from(list(Level))
    cites = st.sampled_from(MARKS)
    kinds: st.SearchStrategy[Event | None] = st.one_of(
        st.none(),
        st.builds(policy, st.sampled_from([b"p", b"q"]), cites),
        st.builds(lambda one, d, c: declare(one, *d, cites=c), level, st.lists(district, max_size=2), cites),
        st.builds(retire, st.integers(24_000, 24_009)),
        st.builds(lambda d, e: start(d, e, (PHARMACY, b"k%d" % e)), district, st.integers(1, 4)),
        st.builds(
            lambda n, g, c: revoke(n, *g, cites=c),
            st.sampled_from([AGENCY, SECOND, PHARMACY]),
            st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 3)), max_size=3),
            cites,
        ),
    )
    entries = []
    for feed in (A, B, C):
        for sequence in range(1, 4):
            for branch in ("", "x"):
                if draw(st.booleans()):
                    role = draw(st.sampled_from([NodeRole.AGENCY, NodeRole.AGENCY, NodeRole.AUTHORITY]))
                    entries.append(
                        entry(
                            draw(kinds),
                            sequence,
                            feed,
                            author=NODES[feed],
                            branch=branch,
                            role=role,
                            stamp=draw(st.integers(0, 9)),
                        )
                    )
    return entries, draw(st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 3), max_size=3))


@given(soups(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_order_repetition_branch_labels_and_clocks_change_nothing(soup, random):
    entries, forks = soup
    view = fold_governance(entries, forks)
    again = [
        msgspec.structs.replace(e, branch=random.randrange(5), stamp=random.randrange(100))
        for e in entries + entries[::3]
    ]
    random.shuffle(again)
    other_forks = dict(sorted(forks.items(), reverse=True))
    folded = fold_governance(again, other_forks)
    assert shown(folded) == shown(view)
    assert folded.digest() == view.digest()


@given(soups())
@settings(max_examples=200, deadline=None)
def test_equal_digests_mean_equal_answers(soup):
    """Leaving out any one entry either changes the digest or nothing that is in force."""
    entries, forks = soup
    view = fold_governance(entries, forks)
    for index in range(len(entries)):
        less = fold_governance(entries[:index] + entries[index + 1 :], forks)
        if less.digest() == view.digest():
            assert shown(msgspec.structs.replace(less, refused=view.refused)) == shown(view)


@given(soups())
@settings(max_examples=200, deadline=None)
def test_what_was_taken_away_never_comes_back(soup):
    """Whatever arrives later, a revoked node stays revoked, and nothing more of its feeds becomes good."""
    entries, forks = soup
    held: list[GovernanceEntry] = []
    for each in entries:
        before = fold_governance(held, forks)
        held.append(each)
        after = fold_governance(held, forks)
        for node in (AGENCY, SECOND, PHARMACY):
            old, new = before.revocation(node), after.revocation(node)
            if old is not None:
                assert new is not None
                assert all(old.good[feed][0] >= end[0] for feed, end in new.good.items())


def test_a_great_chain_folds_quickly_enough_to_be_folded_often():
    """Twenty thousand admissions and their revocations: linear, not quadratic."""
    chain = [entry(event(NodeAdmitted, certificate=b"c"), n) for n in range(1, 20_001)]
    view = fold_governance(chain, {})
    assert view.position(mark(A, 20_000)) == 20_000


def test_a_view_hides_nothing_behind_order_of_districts():
    """Declared for one district and then for another: the same as both at once."""
    one = fold_governance([entry(declare(Level.CRISIS, STOCKHOLM, UPPSALA), 1)], {})
    other = fold_governance([entry(declare(Level.CRISIS, UPPSALA, STOCKHOLM), 1)], {})
    assert [one.level(d) for d in (STOCKHOLM, UPPSALA)] == [other.level(d) for d in (STOCKHOLM, UPPSALA)]


def test_incarnations_keep_their_order_within_a_circle():
    """Two agencies revoked each other, and one of them had gone on in a second feed before."""
    for first, second in ((A, B), (B, A)):
        chain = [
            entry(policy(b"first"), 1, first),
            entry(policy(b"second", mark(first, 1)), 1, second),
            entry(revoke(SECOND, (C, 1)), 2, second),
            entry(declare(Level.STRAINED), 1, C, author=SECOND),
            entry(revoke(AGENCY, (first, 1), (second, 1)), 2, C, author=SECOND),
        ]
        assert fold_governance(chain, {}).policy == (b"second", "SFS 2026:1")


def test_many_feeds_that_revoke_one_another_are_ordered_in_time():
    """As many as two hostile agency nodes may open; each revokes the other in every feed."""
    chain = []
    for number in range(512):
        author, other = (AGENCY, SECOND) if number % 2 else (SECOND, AGENCY)
        feed = FeedId(number.to_bytes(16, "big"))
        chain.append(entry(revoke(other, cites=mark(A, 1)), 1, feed, author=author))
    view = fold_governance(chain, {})
    assert view.position(chain[0].id[:8]) == 1
    assert view.position(chain[-1].id[:8]) == 512
