"""A daemon whose disk is full goes on reading and giving, and takes up writing by itself once there is room (E4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from structlog.testing import capture_logs

from ledger import SystemClock
from nodes.daemon import service
from nodes.daemon.config import ReadinessConfig, parse_config
from nodes.daemon.readiness import SiteLedger
from nodes.daemon.service import Service
from nodes.inprocess import synchronise
from tests.nodes.local.site_for_tests import DOCTOR, Site, order


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of another thread, which has no event to set.
            await asyncio.sleep(0.01)


def test_a_full_disk_ends_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HOUSEKEEPING_SECONDS", 0.01)
    monkeypatch.setattr(service, "REFUSED_SECONDS", 0.01)
    site = Site(tmp_path)
    ledger = SiteLedger.open(site.node("pharmacy"), site.unlock).at(ReadinessConfig())
    with site.open("clinic") as clinic:
        document = clinic.prescribe(order(), person=DOCTOR).document
        synchronise(clinic.exchange, ledger.exchange)
    config = parse_config('node = "pharmacy"\n', base=tmp_path)

    def settled() -> bytes | None:
        with ledger.node.lock:
            return ledger.node.store.get_meta("settled-arrival")

    def room(pages: int) -> None:
        with ledger.node.lock:
            ledger.node.store._c.run(f"PRAGMA max_page_count={pages}")  # type: ignore[attr-defined]

    async def main() -> None:
        room(1)
        before = settled()
        daemon = asyncio.create_task(Service(config, ledger, site.unlock, SystemClock(), Random(1)).run())
        with capture_logs() as logs:
            await until(lambda: any(entry.get("code") == "store-full" for entry in logs))
            assert settled() == before
            assert ledger.show(document).prescription.issued is not None
            assert not daemon.done()
            room(1_000_000)
            await until(lambda: settled() != before)
        assert not daemon.done()
        daemon.cancel()
        with pytest.raises(asyncio.CancelledError):
            await daemon

    asyncio.run(main())
    ledger.close()
