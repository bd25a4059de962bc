"""Who is revoked is off every server, client and leaf node, and stays off; nobody else notices."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import Ledger, NodeRole
from nodes.nats import control
from nodes.nats.control import Applied, apply_folder, apply_folders
from nodes.nats.description import read_description
from nodes.nats.folders import write_users
from nodes.nats.server import ServerFailed
from tests.nodes.nats.network_on_disk import NetworkOnDisk, eventually, ported
from tests.nodes.nats.realm_on_disk import STOCKHOLM, UPPSALA, RealmOnDisk


class Region:
    """A national server, a hub, two sites with two nodes and one node each, and a node without a site's server."""

    def __init__(self, directory: Path) -> None:
        self.realm = RealmOnDisk(directory)
        self.first, self.second, self.third, self.free = (
            self.realm.enrol(NodeRole.PHARMACY, district, name)
            for district, name in (
                (STOCKHOLM, "first"),
                (UPPSALA, "second"),
                (STOCKHOLM, "third"),
                (STOCKHOLM, "free"),
            )
        )
        self.net = NetworkOnDisk(
            self.realm,
            [
                ported("n1", "national"),
                ported("hub", "hub"),
                ported("site-a", "site", hubs=["hub"], nodes=[ident(self.first), ident(self.second)]),
                ported("site-b", "site", hubs=["hub"], nodes=[ident(self.third)]),
            ],
        )

    @property
    def folders(self) -> list[Path]:
        return [self.net.directory / s.name for s in self.net.description.servers]

    def apply(self, *names: str) -> list[Applied]:
        """As `rxledger nats users` does."""
        folders = [f for f in self.folders if not names or f.name in names]
        for folder in folders:
            write_users(folder, self.net.roster(), self.realm.realm)
        return asyncio.run(apply_folders(folders, self.realm.realm))

    async def apply_here(self) -> list[Applied]:
        return await asyncio.to_thread(self.apply)

    async def whole(self) -> None:
        await eventually(lambda: self.net.leafs("hub") == {"site-a", "site-b"}, "both sites under the hub")
        await eventually(lambda: self.net.leafs("n1") == {"hub"}, "the hub under the national server")


def ident(ledger: Ledger) -> str:
    return ledger.node.identity.node.hex()


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Region]:
    made = Region(tmp_path / "region")
    made.net.start()
    yield made
    made.net.close()
    made.realm.close()


def logged(region: Region, name: str, pattern: str) -> int:
    return len(re.findall(pattern, (region.net.directory / name / "nats.log").read_text()))


def test_who_is_revoked_is_gone_and_cannot_return_and_others_do_not_notice(region: Region) -> None:
    net = region.net

    async def main() -> None:
        await region.whole()
        async with (
            net.client("hub", region.free) as free,
            net.client("hub", region.third) as at_hub,
            net.client("site-b", region.third) as at_site,
            net.client("site-a", region.first) as first,
        ):
            assert await net.passes(free, at_site, net.mailbox(region.third))
            assert await net.passes(free, first, net.mailbox(region.first))
            closed_before = logged(region, "hub", "Leafnode connection closed")
            region.realm.revoke(region.third)
            applied = await region.apply_here()
            assert [(a.name, a.done) for a in applied] == [
                ("n1", True),
                ("hub", True),
                ("site-a", True),
                ("site-b", True),
            ], applied
            await eventually(
                lambda: at_hub.is_closed and at_site.is_closed, "the revoked node's clients close"
            )
            assert net.leafs("hub") == {"site-a"}
            for server in ("hub", "site-b", "n1"):
                with pytest.raises(Exception, match=r"(?i)authorization|permissions"):
                    async with net.client(server, region.third):
                        pass
            # It tries again, and is refused again.
            tries = logged(region, "hub", "authentication error")
            await eventually(lambda: logged(region, "hub", "authentication error") > tries, "another try")
            assert net.leafs("hub") == {"site-a"}
            # The others were not so much as disconnected.
            assert free.is_connected
            assert first.is_connected
            assert free.stats["reconnects"] == first.stats["reconnects"] == 0
            assert logged(region, "hub", "Leafnode connection closed: Kicked") == 1
            assert (
                logged(region, "hub", "Leafnode connection closed: (?!Kicked|Authentication)")
                == closed_before
            )
            assert await net.passes(free, first, net.mailbox(region.first))

    asyncio.run(main())


def test_what_a_site_may_carry_narrows_at_once(region: Region) -> None:
    """A reload leaves leaf nodes what they were allowed when they came."""
    net = region.net

    async def main() -> None:
        await region.whole()
        async with (
            net.client("hub", region.free) as free,
            net.client("site-a", region.first) as first,
            net.client("site-a", region.second) as second,
        ):
            assert await net.passes(free, second, net.mailbox(region.second))
            region.realm.revoke(region.second)
            applied = {a.name: a for a in await region.apply_here()}
            assert applied["hub"].done
            assert applied["hub"].kicked == 1
            await eventually(lambda: net.leafs("hub") == {"site-a", "site-b"}, "the site comes back")
            await eventually(lambda: second.is_closed)
            # The district that only the revoked node brought is no longer sent there.
            listed = net.servers["hub"].monitor("/leafz?subs=1")["leafs"]
            assert isinstance(listed, list)
            wanted = {s for leaf in listed for s in leaf["subscriptions_list"] if leaf["name"] == "site-a"}
            assert net.mailbox(region.second) not in wanted
            assert await net.passes(free, first, net.mailbox(region.first))

    asyncio.run(main())


def test_who_is_admitted_comes_in_without_a_restart(region: Region) -> None:
    net = region.net

    async def main() -> None:
        await region.whole()
        new = await asyncio.to_thread(region.realm.enrol, NodeRole.PHARMACY, STOCKHOLM, "new")
        with pytest.raises(Exception, match=r"(?i)authorization"):
            async with net.client("hub", new):
                pass
        async with net.client("site-b", region.third) as third:
            assert all(a.done for a in await region.apply_here())
            async with net.client("hub", new) as client:
                # A site may write to new neighbours only after it has come again under its new permissions.
                await eventually(lambda: net.leafs("hub") == {"site-a", "site-b"})
                assert await net.passes(third, client, net.mailbox(new))
                assert await net.passes(client, third, net.mailbox(region.third))

    asyncio.run(main())


def test_a_server_that_is_no_longer_described_is_gone(region: Region) -> None:
    """A stolen one: its certificate stays good, but nobody above it knows it any more."""
    net = region.net

    async def main() -> None:
        await region.whole()
        tables = net.file.read_text().split("[[")
        net.file.write_text("[[".join(t for t in tables if 'name = "site-a"' not in t))
        net.description = read_description(net.file)
        net.write()
        applied = await asyncio.to_thread(region.apply, "n1", "hub")
        assert [(a.done, a.kicked) for a in applied] == [(True, 0), (True, 1)]
        assert net.leafs("hub") == {"site-b"}
        tries = logged(region, "hub", "authentication error")
        await eventually(lambda: logged(region, "hub", "authentication error") > tries, "another try")
        assert net.leafs("hub") == {"site-b"}

    asyncio.run(main())


def test_applying_again_disturbs_nobody(region: Region) -> None:
    async def main() -> None:
        await region.whole()

    asyncio.run(main())
    for _ in range(2):
        assert [(a.done, a.kicked) for a in region.apply()] == [(True, 0)] * 4


def test_a_server_that_does_not_run_is_reported_and_stops_no_other(region: Region) -> None:
    region.net.servers["site-b"].stop()
    region.realm.revoke(region.first)
    applied = {a.name: a for a in region.apply()}
    assert not applied["site-b"].done
    assert "does not answer" in applied["site-b"].reason
    assert all(applied[name].done for name in ("n1", "hub", "site-a"))
    # When it starts, it starts with what was written.
    region.net.start("site-b")
    assert region.apply("site-b")[0].done


def test_a_server_that_runs_another_configuration_is_reported(region: Region, tmp_path: Path) -> None:
    """A folder of which the machine has another copy: nothing here says what runs there."""
    import shutil

    copy = tmp_path / "copy" / "hub"
    shutil.copytree(region.net.directory / "hub", copy)
    region.realm.revoke(region.free)
    write_users(copy, region.net.roster(), region.realm.realm)
    with pytest.raises(ServerFailed, match="another configuration"):
        asyncio.run(apply_folder(copy, region.realm.realm))


def test_who_does_not_hold_the_operators_key_steers_nothing(region: Region, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy" / "hub"
    shutil.copytree(region.net.directory / "hub", copy)
    shutil.copy(region.net.directory / "site-a" / "operator.key", copy / "operator.key")
    with pytest.raises(ServerFailed, match="does not know its operator"):
        asyncio.run(apply_folder(copy, region.realm.realm))


def test_connections_are_read_to_the_last_page(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PAGE", 2)
    net = region.net

    async def main() -> None:
        await region.whole()
        async with (
            net.client("hub", region.free),
            net.client("hub", region.first),
            net.client("hub", region.second),
            net.client("hub", region.third) as third,
        ):
            region.realm.revoke(region.third)
            assert all(a.done for a in await region.apply_here())
            await eventually(lambda: third.is_closed)
            assert net.leafs("hub") == {"site-a"}
        monkeypatch.setattr(control, "PAGES_MAX", 1)
        async with net.client("hub", region.free), net.client("hub", region.first):
            with pytest.raises(ServerFailed, match="more than"):
                await apply_folder(net.directory / "hub", region.realm.realm)

    asyncio.run(main())
