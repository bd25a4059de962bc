"""node.toml: the example holds, every refusal names the key and says what to write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ledger.errors import InvalidInput, LimitExceeded, NotFound
from nodes.daemon.config import CONFIG_BYTES_MAX, DaemonConfig, load_config, parse_config

ROOT = Path(__file__).resolve().parents[3]
BASE = Path("/etc/rxledger")
LINK = '[[links]]\nname = "hub"\nurls = ["tls://hub.example:4222"]\n'


def example() -> str:
    text = (ROOT / "docs/daemon.md").read_text()
    found = re.search(r"<!-- example: begin.*?```toml\n(.*?)```\n<!-- example: end", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_of_the_documentation_holds_and_states_every_key() -> None:
    config = parse_config(example(), base=BASE)
    assert config.links[1].bandwidth_bits_per_s == 9600
    assert config.nightly is not None
    assert config.nightly.start_time().hour == 2
    assert config.metrics_address() == ("127.0.0.1", 9464)
    assert config.peers.ids() == (bytes.fromhex("0123456789abcdef0123456789abcdef"),)
    uncommented = re.sub(r"^# ", "", example(), flags=re.MULTILINE)
    for section in (config, config.links[0], config.peers, config.nightly, config.spool, config.readiness):
        assert section is not None
        for field in section.__struct_fields__:
            if field not in ("strained_after_hours", "minimum_after_hours"):
                assert re.search(rf"^\[*{field}\b", uncommented, re.MULTILINE), field


def test_little_is_needed(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('node = "eken"')
    config = load_config(tmp_path / "node.toml")
    assert config == DaemonConfig(node=tmp_path / "eken")


def test_paths_are_taken_from_where_the_file_lies() -> None:
    text = 'node="n"\nunlock="/u"\nsocket="s"\n[nightly]\nstart="01:00"\nbackup_directory="b"\n[spool]\ndirectory="p"'
    config = parse_config(text, base=BASE)
    assert (config.node, config.unlock, config.socket) == (BASE / "n", Path("/u"), BASE / "s")
    assert config.nightly is not None
    assert config.spool is not None
    assert (config.nightly.backup_directory, config.spool.directory) == (BASE / "b", BASE / "p")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "node"),
        ("node = 1", "node"),
        ('node = ""', "node"),
        ('node = "a\\u0000b"', "node"),
        ('node = "a"\nspeed = 1', "speed"),
        ('node = "a"\nlog_level = "loud"', "log_level"),
        ('node = "a"\nsocket_group = -1', "socket_group"),
        ('node = "a"\nmetrics = "0.0.0.0:9464"', "metrics"),
        ('node = "a"\nmetrics = "[::]:9464"', "metrics"),
        ('node = "a"\nmetrics = "hub.example:9464"', "metrics"),
        ('node = "a"\nmetrics = "127.0.0.1"', "metrics"),
        ('node = "a"\nmetrics = "127.0.0.1:99999"', "metrics"),
        ('node = "a"\nlinks = 3', "links"),
        ('node = "a"\n[[links]]\nname = "hub"', "links[0].urls"),
        ('node = "a"\n[[links]]\nname = "hub"\nurls = []', "links[0].urls"),
        ('node = "a"\n[[links]]\nname = "Tolvan T"\nurls = ["tls://h:1"]', "links[0].name"),
        (f'node = "a"\n{LINK}{LINK}', "links[1].name"),
        (f'node = "a"\n{LINK}bandwidth_bits_per_s = 9', "links[0].bandwidth_bits_per_s"),
        (f'node = "a"\n{LINK}bandwith_bits_per_s = 9600', "links[0].bandwith_bits_per_s"),
        (f'node = "a"\n{LINK}tls = "yes"', "links[0].tls"),
        (f'node = "a"\n{LINK}tls = false', "links[0].urls"),
        ('node = "a"\n[[links]]\nname = "hub"\nurls = ["http://h:1"]', "links[0].urls"),
        ('node = "a"\n[[links]]\nname = "hub"\nurls = ["tls://h"]', "links[0].urls"),
        ('node = "a"\n[[links]]\nname = "hub"\nurls = ["tls://h:x"]', "links[0].urls"),
        ('node = "a"\n[[links]]\nname = "hub"\nurls = ["tls://[h:1"]', "links[0].urls"),
        ('node = "a"\n[[links]]\nname = "hub"\nurls = ["tls://u:p@h:1"]', "links[0].urls"),
        ('node = "a"\n[[links]]\nname = "hub"\nurls = ["tls://h:1/x"]', "links[0].urls"),
        ('node = "a"\n[peers]\nnodes = ["eken"]', "peers.nodes[0]"),
        ('node = "a"\n[nightly]\nduration_minutes = 60', "nightly.start"),
        ('node = "a"\n[nightly]\nstart = "24:00"', "nightly.start"),
        ('node = "a"\n[nightly]\nstart = "02:30"\nduration_minutes = 1201', "nightly.duration_minutes"),
        ('node = "a"\n[nightly]\nstart = "02:30"\nbudget_bytes = -1', "nightly.budget_bytes"),
        ('node = "a"\n[nightly]\nstart = "02:30"\nbackups_kept = 0', "nightly.backups_kept"),
        ('node = "a"\n[nightly]\nstart = "02:30"\ntime_zone = "Europe/Lund"', "nightly.time_zone"),
        ('node = "a"\n[nightly]\nstart = "02:30"\ntime_zone = "../etc"', "nightly.time_zone"),
        ('node = "a"\n[spool]\noutbox = "all"', "spool.outbox"),
        ('node = "a"\n[spool]\ndirectory = "s"\noutbox_bytes_max = 5', "spool.outbox_bytes_max"),
        ('node = "a"\n[readiness]\ncrisis_after_hours = 100000', "readiness.crisis_after_hours"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_remedy(text: str, key: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_config(text, base=BASE)
    assert refused.value.message.startswith(f"{key}: "), refused.value.message
    assert refused.value.advice
    assert "u:p" not in str(refused.value)


def test_every_bound_is_met_at_its_edge() -> None:
    for minutes in (1, 1200):
        config = parse_config(f'node="a"\n[nightly]\nstart="23:59"\nduration_minutes={minutes}', base=BASE)
        assert config.nightly is not None
    links = "".join(f'[[links]]\nname = "l{n}"\nurls = ["tls://h:1"]\n' for n in range(16))
    assert len(parse_config(f'node="a"\n{links}', base=BASE).links) == 16
    with pytest.raises(InvalidInput, match="links: "):
        parse_config(f'node="a"\n{links}[[links]]\nname = "l16"\nurls = ["tls://h:1"]\n', base=BASE)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    with pytest.raises(NotFound):
        load_config(path)
    for content, error in (
        (b"node = ", InvalidInput),
        (b"\xff", InvalidInput),
        (b"#" * (CONFIG_BYTES_MAX + 1), LimitExceeded),
    ):
        path.write_bytes(content)
        with pytest.raises(error):
            load_config(path)
