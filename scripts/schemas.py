"""Writes `schemas/` from the code: JSON Schemas, the page that explains them, and the test vectors.

    python scripts/schemas.py            write
    python scripts/schemas.py --check    exit 1 if what stands there is not what the code says

Everything is the same to the byte on every Python and hash seed.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import structlog

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from ledger import codec, enrolment, events, feed, paper  # noqa: E402
from scripts.asyncapi import SCHEMA_FILE, asyncapi, network_components  # noqa: E402
from scripts.vectors.carriers import carriers  # noqa: E402
from scripts.vectors.certified import certified  # noqa: E402
from scripts.vectors.courses import courses  # noqa: E402
from scripts.vectors.craft import World  # noqa: E402
from scripts.vectors.folds import folds  # noqa: E402
from scripts.vectors.letters import letters  # noqa: E402
from scripts.vectors.mustnot import mustnot  # noqa: E402
from scripts.vectors.readme import readme  # noqa: E402
from scripts.vectors.shelf import Shelf, Surprise, pretty  # noqa: E402
from scripts.vectors.travels import travels  # noqa: E402
from scripts.vectors.values import values  # noqa: E402

__all__ = ["build", "differences", "main"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FORMATS = "1.0.0"
"""Version of the formats on the wire, as the AsyncAPI document states it: the first number is that of `nodes.messages`."""
SHOWN_MAX = 20
"""Differing files named; more help nobody."""
_TRAVELLING = {
    "entry": (feed.Entry, (feed.Entry, feed.Run, feed.ForkProof)),
    "opening": (feed.Opening, (feed.Opening, feed.SignedOpening)),
    "content": (codec.Content, (codec.Content,)),
    "paper": (paper.Paper, (paper.Paper, paper.CarriedEntry)),
    "enrolment": (enrolment.EnrolmentPackage, (enrolment.EnrolmentPackage, enrolment.EnrolmentRequest)),
}
"""Schema file → what it describes, and what else stands in it."""


def _schema(name: str, about: type, kinds: tuple[type, ...]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    whole = {
        "$schema": DIALECT,
        "$id": f"{name}.schema.json",
        "$ref": f"#/$defs/{about.__name__}",
        "$defs": components,
    }
    return _one_line(whole)


def _one_line(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """The same with descriptions on one line: Python 3.13 indents docstrings otherwise than 3.11."""
    if isinstance(schema, dict):
        return {
            key: " ".join(value.split())
            if key in {"description", "summary"} and isinstance(value, str)
            else _one_line(value)
            for key, value in schema.items()
        }
    return [_one_line(inner) for inner in schema] if isinstance(schema, list | tuple) else schema


def build(directory: Path) -> None:
    """Write everything into an empty directory."""
    (directory / "events").mkdir(parents=True)
    for name, kind in events.KINDS.items():
        (directory / "events" / f"{name}.schema.json").write_bytes(
            pretty(_schema(f"events/{name}", kind, (kind,)))
        )
    for name, (about, kinds) in _TRAVELLING.items():
        (directory / f"{name}.schema.json").write_bytes(pretty(_schema(name, about, kinds)))
    network = network_components()
    whole = {"$schema": DIALECT, "$id": SCHEMA_FILE, "$defs": network}
    (directory / SCHEMA_FILE).write_bytes(pretty(_one_line(whole)))
    (directory / "asyncapi.json").write_bytes(pretty(_one_line(asyncapi(FORMATS, network))))
    dictionary = (ROOT / "ledger" / "dictionaries" / "1.zdict").read_bytes()
    digest = hashlib.sha256(dictionary).hexdigest()
    (directory / "dictionaries.json").write_bytes(
        pretty({"1": {"file": "ledger/dictionaries/1.zdict", "bytes": len(dictionary), "sha256": digest}})
    )
    world = World()
    shelf = Shelf(directory / "vectors", world)
    for write in (values, certified, travels, letters, carriers, folds, courses, mustnot):
        write(shelf, world)
    (directory / "README.md").write_text(readme(shelf.names, digest), encoding="utf-8")


def _files(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()
    }


def differences(directory: Path) -> list[str]:
    """What stands in a directory and is not what the code says, one line each."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary) / "schemas"
        build(fresh)
        wanted, found = _files(fresh), _files(directory)
    return [
        *(f"missing: {name}" for name in wanted.keys() - found.keys()),
        *(f"not from the code: {name}" for name in found.keys() - wanted.keys()),
        *(f"differs: {name}" for name in wanted.keys() & found.keys() if wanted[name] != found[name]),
    ]


def _write(directory: Path) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary) / "schemas"
        build(fresh)
        if directory.exists():
            shutil.rmtree(directory)
        shutil.copytree(fresh, directory)
    return len(_files(directory))


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 done or no drift, 1 drift."""
    parser = argparse.ArgumentParser(description="Write schemas/ from the code, or compare.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if something differs")
    parser.add_argument(
        "--directory", type=Path, default=ROOT / "schemas", help="default: schemas/ of this project"
    )
    given = parser.parse_args(arguments)
    # Hundreds of hostile inputs are refused on the way; their warnings are no news.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        if not given.check:
            print(f"{_write(given.directory)} files written")
            return 0
        found = sorted(differences(given.directory))
    except Surprise as surprise:
        print(
            f"{surprise}\nThe code judges a vector otherwise than its author says in scripts/vectors: one of them is wrong."
        )
        return 1
    for line in found[:SHOWN_MAX]:
        print(line)
    if len(found) > SHOWN_MAX:
        print(f"… and {len(found) - SHOWN_MAX} more")
    if found:
        print("schemas/ is not what the code says. If the change is meant: make schemas")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
