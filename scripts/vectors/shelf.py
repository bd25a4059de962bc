"""Where vectors are collected and written: one folder each, the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from scripts.vectors.craft import NOW_MS, World
from scripts.vectors.judge import judge

__all__ = ["Shelf", "Surprise", "pretty", "realm_of"]

_INLINE_MAX = 400
"""Bytes that stand in the JSON as hex; longer inputs get a file of their own."""
_FOUND = frozenset({"fold", "act"})


def pretty(value: object) -> bytes:
    """JSON as it stands in the repository: sorted, indented, one newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2) + b"\n"


class Surprise(Exception):
    """The code judges a vector otherwise than its author says."""


class Shelf:
    """Takes vectors and writes them under one directory."""

    def __init__(self, directory: Path, world: World) -> None:
        self.directory, self.world = directory, world
        self.names: list[str] = []
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "realm.json").write_bytes(pretty(realm_of(world)))

    def add(
        self, name: str, check: str, title: str, rules: str, inputs: dict[str, Any], *, error: str = "",
        says: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Write one vector. With `error` it must fail with this code; else what comes out is written down.

        Args:
            name: of the folder; `_fail` is appended if it must fail.
            check: kind of check, a key of `scripts.vectors.judge.CHECKS`.
            title: what it shows, in one sentence.
            rules: numbers of the rules, separated by spaces.
            inputs: by name; bytes become hex or a file.
            error: code that the check must end in.
            says: what must come out, stated by hand; the rest is taken from the code.
        """
        name = f"{name}_fail" if error else name
        assert name not in self.names, name
        self.names.append(name)
        folder = self.directory / name
        folder.mkdir()
        vector: dict[str, Any] = {
            "title": title,
            "rules": rules.split(),
            "check": check,
            "inputs": {key: self._input(folder, key, value) for key, value in inputs.items()},
            "expect": {"error": error} if error else {},
        }
        (folder / "vector.json").write_bytes(pretty(vector))
        if error and check not in _FOUND:
            return
        code, found = judge(folder)
        if code != error:
            raise Surprise(f"{name}: ended in {code!r}, not {error!r}")
        for key, value in (says or {}).items():
            if (said := _said(found, key)) != value:
                raise Surprise(f"{name}: {key} is {said!r}, not {value!r}")
        vector["expect"]["found"] = found
        (folder / "vector.json").write_bytes(pretty(vector))

    def _input(self, folder: Path, name: str, value: object) -> object:
        if isinstance(value, bytes):
            if len(value) <= _INLINE_MAX:
                return value.hex()
            (folder / f"{name}.bin").write_bytes(value)
            return f"file:{name}.bin"
        if isinstance(value, list | tuple):
            return [self._input(folder, f"{name}-{number}", inner) for number, inner in enumerate(value, 1)]
        if isinstance(value, dict):
            return {key: self._input(folder, f"{name}-{key}", inner) for key, inner in value.items()}
        return value


def _said(found: dict[str, Any], key: str) -> object:
    """A value that comes out; of folds also summed up over all documents."""
    if key in found or "documents" not in found:
        return found.get(key)
    states = found["documents"].values()
    match key:
        case "anomalies":
            return sorted({a["kind"] for s in states for a in s["anomalies"]})
        case "status":
            return sorted(s["status"] for s in states)
        case "fills":
            return [f["status"] for s in states for f in s["fills"]]
        case "dosage":
            return sorted(d for s in states for d in s["dosage"])
        case "not_understood":
            return sum(len(s["not_understood"]) for s in states)
        case _:
            return sum(s["balance"][key] for s in states)


def realm_of(world: World) -> dict[str, Any]:
    """What ``realm.json`` states."""
    return {
        "about": "Test keys, made from a published seed. They protect nothing and must never be used for anything else.",
        "id": world.realm.id.hex(),
        "now_ms": NOW_MS,
        "root_certificate": world.root_certificate.hex(),
        "district_keys": {
            district: {
                str(e): key.hex() for (d, e), key in world.district_keys.items() if d == district and e == 1
            }
            for district in sorted({d for d, _ in world.district_keys})
        },
        "index_keys": {d: k.hex() for d, k in world.index_keys.items()},
        "nodes": {
            name: {
                "node": member.certified.node.hex(),
                "role": member.certified.role.value,
                "district": member.certified.district,
                "keys": member.keys.to_bytes().hex(),
                "certificates": [der.hex() for der in member.chain],
            }
            for name, member in world.members.items()
        },
    }
