"""A description is refused for what is wrong with it, and where; it can put nothing into a configuration but itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.errors import InvalidInput
from nodes.nats import description as module
from nodes.nats.description import read_description

NODE = "0123456789abcdef0123456789abcdef"
GOOD = f"""
[[national]]
name = "n1"
address = "n1.example"

[[hub]]
name = "north"
address = "192.0.2.1"
also = ["north.example"]
districts = ["SE-AB-0180"]

[[site]]
name = "site-1"
address = "192.168.0.10"
hubs = ["north"]
nodes = ["{NODE}"]
"""


def read(tmp_path: Path, text: str) -> module.Description:
    path = tmp_path / "network.toml"
    path.write_text(text)
    return read_description(path)


def test_a_short_description_states_the_usual(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert [s.name for s in found.servers] == ["n1", "north", "site-1"]
    assert found.national[0].ports == [4222, 8222, 7422, 6222]
    assert found.site[0].carried == {bytes.fromhex(NODE)}
    assert found.server("north") is found.hub[0]
    with pytest.raises(InvalidInput, match="no server 'south'"):
        found.server("south")


@pytest.mark.parametrize(
    ("instead", "of", "reason"),
    [
        ('name = "N1"', 'name = "n1"', "name of a server"),
        ('name = "../n1"', 'name = "n1"', "name of a server"),
        ('name = "north"', 'name = "n1"', "two servers are called north"),
        ('address = "n1.example\\" }"', 'address = "n1.example"', "neither a host name"),
        ('address = "192.0.2.1"\nport = 4222', 'address = "n1.example"', "two servers listen on 192.0.2.1 port 4222"),
        ('address = "n1.example"\nbind = "everywhere"', 'address = "n1.example"', "bind: 'everywhere'"),
        ('address = "n1.example"\nport = 0', 'address = "n1.example"', r"`\$\.national\[0\]\.port`"),
        ('address = "n1.example"\nport = 8222', 'address = "n1.example"', "n1: two things listen on port 8222"),
        ('address = "n1.example"\nports = 1', 'address = "n1.example"', "unknown field `ports`"),
        ('districts = ["*"]', 'districts = ["SE-AB-0180"]', "districts: '\\*'"),
        ('districts = ["SE AB"]', 'districts = ["SE-AB-0180"]', "districts: 'SE AB'"),
        ('hubs = ["south"]', 'hubs = ["north"]', "no \\[\\[hub\\]\\] called 'south'"),
        ("hubs = []", 'hubs = ["north"]', r"`\$\.site\[0\]\.hubs`"),
        ("nodes = []", f'nodes = ["{NODE}"]', r"`\$\.site\[0\]\.nodes`"),
        ('nodes = ["apotek"]', f'nodes = ["{NODE}"]', "nodes: 'apotek' is not 32"),
        ("[[nation]]", "[[national]]", "unknown field `nation`"),
        ("name = ", 'name = "n1"', "(?i)invalid value"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, instead: str, of: str, reason: str) -> None:
    assert of in GOOD
    with pytest.raises(InvalidInput, match=reason):
        read(tmp_path, GOOD.replace(of, instead, 1))


def test_an_empty_description_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\[\[hub\]\]"):
        read(tmp_path, "")


def test_a_description_is_text_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "network.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput):
        read_description(path)
    monkeypatch.setattr(module, "DESCRIPTION_BYTES_MAX", len(GOOD.encode()))
    read(tmp_path, GOOD)
    with pytest.raises(InvalidInput, match="larger than"):
        read(tmp_path, GOOD + "#")


def test_numbers_of_servers_are_bounded(tmp_path: Path) -> None:
    def cluster(count: int) -> str:
        return "".join(f'[[national]]\nname = "n{n}"\naddress = "n{n}.example"\n' for n in range(count))

    assert len(read(tmp_path, cluster(module.NATIONAL_MAX)).national) == module.NATIONAL_MAX
    with pytest.raises(InvalidInput, match="length <= 7"):
        read(tmp_path, cluster(module.NATIONAL_MAX + 1))


def test_sites_may_have_the_same_address_in_their_own_networks(tmp_path: Path) -> None:
    second = f'[[site]]\nname = "site-2"\naddress = "192.168.0.10"\nhubs = ["north"]\nnodes = ["{NODE}"]\n'
    assert len(read(tmp_path, GOOD + second).site) == 2


def test_the_description_in_the_documentation_is_a_good_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/nats.md").read_text()
    block = text.partition("```toml\n")[2].partition("```")[0]
    found = read(tmp_path, block)
    assert found.national
    assert found.hub
    assert found.site
