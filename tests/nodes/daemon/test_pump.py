"""What the pump takes in at once: order kept, bounded, small messages by themselves (R15)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodes.daemon.inflow import Received
from nodes.daemon.pump import LARGE_BYTES, TOGETHER_BYTES_MAX, _together

SIZES = st.one_of(
    st.sampled_from([1, LARGE_BYTES - 1, LARGE_BYTES, 64 * 1024, 128 * 1024]), st.integers(1, 128 * 1024)
)


@given(st.lists(SIZES, max_size=30))
def test_large_messages_that_follow_each_other_are_taken_together_in_order_and_within_bounds(
    sizes: list[int],
) -> None:
    batch = [Received("hub", str(number), bytes(size)) for number, size in enumerate(sizes)]
    groups = list(_together(batch))
    assert [received for group in groups for received in group] == batch
    for group in groups:
        assert len(group) == 1 or all(len(received.payload) >= LARGE_BYTES for received in group)
        assert len(group) == 1 or sum(len(received.payload) for received in group) <= TOGETHER_BYTES_MAX
    assert len(groups) <= len(batch)


def test_four_pieces_of_catching_up_are_made_durable_at_once() -> None:
    batch = [Received("hub", "to", bytes(64 * 1024 - 200)) for _ in range(8)]
    assert [len(group) for group in _together(batch)] == [4, 4]
