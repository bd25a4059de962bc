"""A night's run is killed in the middle and goes on: one run, one report, counted over both processes."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nodes.daemon.report import NightReport, last_report
from nodes.daemon.window import WindowMemory
from tests.cluster.book import AGREE_SECONDS, agree
from tests.lab.cluster import Member, open_cluster, until
from tests.lab.lab import KINDS
from tests.nodes.local.site_for_tests import order

WRITTEN = 40
SECONDS = 60.0


def entries(member: Member) -> int:
    """How many entries lie on its disk."""
    with member.reading() as ledger:
        return sum(1 for _ in ledger.inquiry.verify())


def nightly(*peers: Member) -> str:
    """A window that opened a minute ago, and those who are talked to in it."""
    start = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%H:%M")
    names = ", ".join(f'"{peer.node.hex()}"' for peer in peers)
    return (
        f'[nightly]\nstart = "{start}"\ntime_zone = "UTC"\nbackup_directory = "backups"\n'
        f"[peers]\nnodes = [{names}]\n"
    )


def test_the_report_of_a_night_that_was_killed_and_went_on_is_of_the_whole_night(tmp_path: Path) -> None:
    with open_cluster(KINDS[0], tmp_path) as cluster:
        cluster.start()
        agree(cluster, AGREE_SECONDS)
        clinic = cluster["clinic"]
        clinic.stop()
        cluster["agency"].stop()
        with clinic.ledger() as ledger:
            for _ in range(WRITTEN):
                ledger.prescribe(order(), person=clinic.person, command=uuid.uuid4().bytes)
        # Nobody has been heard by a daemon that begins: the order is that of the ids.
        first, second = sorted((cluster["eken"], cluster["linden"]), key=lambda member: member.node)
        held = entries(first), entries(second)
        second.process.pause()

        clinic.configure(nightly(first, second))
        clinic.process.start()

        def report() -> NightReport | None:
            return last_report(clinic.directory)

        def in_the_middle() -> bool:
            found = report()
            return found is not None and any(t.in_step for t in found.peers) and not found.ended_ms

        until(in_the_middle, SECONDS, "the first peer's turn is over and the second's is not")
        pending = WindowMemory(clinic.directory).state.pending
        until(
            lambda: WindowMemory(clinic.directory).state.pending == (second.node.hex(),), SECONDS,
            f"the second peer is noted as left over, not {pending}",
        )  # fmt: skip
        clinic.kill()
        cut_off = report()
        assert cut_off is not None
        first.stop()  # So that nobody else tells the second.

        clinic.configure(nightly(second))
        clinic.process.start()
        second.process.resume()
        until(lambda: (r := report()) is not None and r.ended_ms, SECONDS, "the night's end")
        clinic.stop()
        second.stop()

        whole = report()
        assert whole is not None
        print("\n".join(f"{turn}" for turn in whole.peers))
        assert (whole.resumed, whole.whole, whole.not_reached) == (True, True, ())
        assert (whole.night, whole.began_ms) == (cut_off.night, cut_off.began_ms)
        turns = {turn.node: turn for turn in whole.peers}
        assert set(turns) == {first.node.hex(), second.node.hex()}
        for member, before in zip((first, second), held, strict=True):
            turn = turns[member.node.hex()]
            assert entries(member) - before == WRITTEN == turn.entries_out
            assert (turn.entries_in, turn.in_step) == (0, True)
        assert turns[first.node.hex()] == next(t for t in cut_off.peers if t.in_step)
        assert whole.spent_bytes == sum(turn.bytes_in + turn.bytes_out for turn in whole.peers)
        assert whole.scrub is not None
        assert whole.backup is not None
        assert whole.scrub.checked_entries == whole.backup.entries == entries(clinic)
