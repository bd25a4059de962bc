"""House rules that no tool knows: which way imports point, what the core may not call, what documents may claim."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nodes.cli.main import parser

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("ledger", "nodes", "simulations")
"""A package may import those before it, never those after it."""
LINES_MAX = 450
LONGER_FOR_A_REASON = {
    "ledger/events.py": "one struct per event of one tagged union: the contract is read in one place",
}

ALLOWED = {
    "ledger/clock.py": {"datetime.now"},
    "ledger/entropy.py": {"os.urandom"},
}
"""The one place for the machine's time, the one for its randomness."""
DISK = ("ledger/store/", "ledger/keystore.py")
FORBIDDEN_CALLS = {
    "time.time", "time.time_ns", "time.monotonic", "time.sleep", "datetime.now", "datetime.utcnow", "datetime.today",
    "date.today", "os.urandom", "os.getenv", "os.environ", "uuid.uuid1", "uuid.uuid4",
}  # fmt: skip
FORBIDDEN_IMPORTS = {
    "asyncio",
    "nats",
    "random",
    "requests",
    "secrets",
    "select",
    "socket",
    "subprocess",
    "time",
    "uuid",
}
"""The core is bytes, commands, time and entropy in, values out; only the store touches a disk."""
DISK_CALLS = {"open", "os.open", "os.write", "os.replace", "os.fsync", "sqlite3.connect"}

TEXT_SUFFIXES = {".md", ".py", ".toml", ".txt", ".json", ".yml", ".yaml", ".cfg", ""}
FORBIDDEN_WORDS = re.compile(
    # Taken apart, so that this file does not contain them.
    "|".join(("/wo" + r"rk/", r"/tm" + r"p/wo" + "rk", r"\.lib" + "rary", "files.python" + "hosted", "py" + r"pi\.org", r"file:///" + "opt"))
)  # fmt: skip
GENERATED = {".git", ".venv", "build", "dist", "__pycache__", ".hypothesis"}


def modules(*packages: str) -> list[Path]:
    """Every Python file of the packages."""
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_files() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in (".ci", ".gitignore") for part in parts)
        generated = GENERATED.intersection(parts) or any(part.endswith(".egg-info") for part in parts)
        if path.is_file() and path.suffix in TEXT_SUFFIXES and not hidden and not generated:
            yield path


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=name_of(path))


def imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def dotted(node: ast.expr) -> str:
    """``a.b`` for the last two names of an attribute; the name itself for a name."""
    if isinstance(node, ast.Attribute):
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        return f"{owner}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", modules(*LAYERS), ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    above = set(LAYERS[LAYERS.index(package) + 1 :]) | {"tests", "scripts", "benchmarks", "schemas"}
    assert above.isdisjoint(name.split(".")[0] for name in imported(tree(path)))


@pytest.mark.parametrize("path", modules("ledger"), ids=name_of)
def test_the_core_asks_the_machine_for_nothing(path: Path) -> None:
    module, name = tree(path), name_of(path)
    calls = {dotted(node) for node in ast.walk(module) if isinstance(node, ast.Attribute | ast.Name)}
    assert calls & FORBIDDEN_CALLS <= ALLOWED.get(name, set())
    assert FORBIDDEN_IMPORTS.isdisjoint(import_.split(".")[0] for import_ in imported(module))
    if not name.startswith(DISK):
        called = {dotted(node.func) for node in ast.walk(module) if isinstance(node, ast.Call)}
        assert called.isdisjoint(DISK_CALLS)


@pytest.mark.parametrize("path", modules(*LAYERS), ids=name_of)
def test_a_module_says_what_it_is_for_and_stays_readable(path: Path) -> None:
    assert ast.get_docstring(tree(path)), "no docstring"
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_MAX or name_of(path) in LONGER_FOR_A_REASON, (
        f"{lines} lines: which is the second noun?"
    )


def test_assertions_are_never_switched_off() -> None:
    """They are invariants of the core."""
    assert __debug__
    for path in (ROOT / "Makefile", ROOT / ".ci/run"):
        assert not re.search(r"python[0-9.]* +-O", path.read_text())


def test_the_project_speaks_of_itself_only() -> None:
    """No path of a machine that it was made on, no host of a package index."""
    found = {name_of(p): FORBIDDEN_WORDS.findall(p.read_text(errors="replace")) for p in text_files()}
    assert {name: words for name, words in found.items() if words} == {}


# --- documents --------------------------------------------------------------------------------------------------


def code_in(path: Path) -> str:
    """Code blocks and inline code of a document."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", path.read_text(), flags=re.DOTALL))


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_documents_name_verbs_that_exist(path: Path) -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", code_in(path))) <= verbs


def command_lines(root: argparse.ArgumentParser, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command with its verbs."""
    yield before
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from command_lines(inner, (*before, word))


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_documents_name_commands_that_exist(path: Path) -> None:
    known = set(command_lines(parser()))
    for line in re.findall(r"\brxledger ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)", code_in(path)):
        words = tuple(line.split())
        assert words[:1] in known, f"rxledger {words[0]}"
        if any(len(command) == 2 and command[0] == words[0] for command in known) and len(words) > 1:
            assert words[:2] in known, f"rxledger {words[0]} {words[1]}"


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_modules_that_documents_name_exist(path: Path) -> None:
    for name in re.findall(r"`((?:ledger|nodes|simulations)(?:\.[A-Za-z_]+)+)`", path.read_text()):
        resolve(name)


def resolve(name: str) -> object:
    """The module, or the thing in a module, with this dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        owner, _, last = name.rpartition(".")
        return getattr(resolve(owner) if "." in owner else importlib.import_module(owner), last)


LIMITS = re.findall(
    r"^\| `([a-z_.]+\.[A-Z_]+)` \| (\d+) \|", (ROOT / "docs/threat-model.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize(("name", "stated"), LIMITS)
def test_the_threat_model_states_the_limits_that_the_code_has(name: str, stated: str) -> None:
    assert resolve(name) == int(stated)


def test_the_threat_model_states_limits() -> None:
    assert len(LIMITS) > 20


def test_decision_records_are_numbered_listed_and_whole() -> None:
    records = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(r.name[:4]) for r in records] == list(range(1, len(records) + 1))
    index = (ROOT / "docs/adr/README.md").read_text()
    for record in records:
        assert f"]({record.name})" in index
        headings = set(re.findall(r"^## (.+)$", record.read_text(), flags=re.MULTILINE))
        assert headings >= {"Context", "Drivers", "Options", "Outcome", "What would change our mind"}, (
            record.name
        )


# --- the lock ---------------------------------------------------------------------------------------------------


def project() -> dict[str, list[str]]:
    """Runtime and development requirements."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime: list[str] = table["project"]["dependencies"]
    return {"runtime": runtime, "dev": runtime + table["dependency-groups"]["dev"]}


def pins(lock: str) -> dict[str, list[str]]:
    """Distribution → pinned versions."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", lock, flags=re.MULTILINE):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


@pytest.mark.parametrize("which", ["runtime", "dev"])
def test_the_lock_pins_every_dependency_within_its_range_and_by_hash(which: str) -> None:
    lock = (ROOT / "requirements" / f"{which}.txt").read_text()
    pinned = pins(lock)
    for text in project()[which]:
        wanted = Requirement(text)
        versions = pinned[canonicalize_name(wanted.name)]
        assert any(wanted.specifier.contains(version, prereleases=True) for version in versions), text
    for block in re.split(r"^(?=[a-z])", lock, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
    assert "://" not in lock
