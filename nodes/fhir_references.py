"""Finding what a FHIR reference means inside one file: contained resources, bundles in bundles, Parameters.

Nothing is ever fetched: a reference that the file does not answer stays unanswered. An answer that is not
unique is none, since the wrong patient is worse than no patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ledger.errors import LimitExceeded
from nodes.fhir_values import Json, items, one, text

__all__ = ["DEPTH_MAX", "Place", "places"]

DEPTH_MAX: Final = 64
"""Nesting of a file: a request contained in a dispensing in a bundle in a bundle in Parameters needs 14."""

_Index = dict[str, Json | None]
"""Resources by every key that a reference may use; None where two different resources claim one key."""


def _key(reference: str) -> str:
    plain = reference.split("/_history/", 1)[0]
    return plain.lower() if plain[:4].lower() == "urn:" else plain


def _enter(index: _Index, key: str, resource: Json) -> None:
    if key:
        held = index.setdefault(key, resource)
        if held is not None and held is not resource and held != resource:
            index[key] = None


def _collect(parent: Json, depth: int = 0) -> Iterator[tuple[str, Json]]:
    """Full URL and resource of every entry of a Bundle or parameter of Parameters."""
    if depth > DEPTH_MAX:
        return
    for entry in (*items(parent.get("entry")), *items(parent.get("parameter")), *items(parent.get("part"))):
        resource = entry.get("resource")
        if isinstance(resource, dict):
            yield text(entry.get("fullUrl")), resource
        if "part" in entry:
            yield from _collect({"part": entry["part"]}, depth + 1)


def _index(parent: Json) -> _Index:
    index: _Index = {}
    for url, resource in _collect(parent):
        kind, own = text(resource.get("resourceType")), text(resource.get("id"))
        keys = {_key(url), "/".join(url.split("/")[-2:]) if url.count("/") > 2 else ""}
        if own:
            keys |= {f"{kind}/{own}", own, f"urn:uuid:{own}".lower()}
        for key in keys:
            _enter(index, key, resource)
    return index


@dataclass(frozen=True)
class Place:
    """One resource and where it stands, which decides what its references mean."""

    resource: Json
    path: str
    container: Json
    """The resource whose ``contained`` answers references with ``#``; itself, unless it is contained."""
    bundles: tuple[tuple[Json, _Index], ...]
    """Bundles and Parameters around it, the nearest first."""

    def follow(self, reference: object, *kinds: str) -> Json | None:
        """The resource that is meant, if it is in the file, unique, and of one of these kinds."""
        target = text(one(reference).get("reference"))
        found: Json | None = None
        if target.startswith("#"):
            named = [
                inner for inner in items(self.container.get("contained")) if inner.get("id") == target[1:]
            ]
            found = named[0] if len(named) == 1 else None
        elif target:
            for _, index in self.bundles:
                if _key(target) in index:
                    found = index[_key(target)]
                    break
        return found if found is not None and text(found.get("resourceType")) in kinds else None

    def siblings(self, kind: str) -> list[Json]:
        """Resources of a kind in the nearest bundle."""
        return (
            [r for _, r in _collect(self.bundles[0][0]) if r.get("resourceType") == kind]
            if self.bundles
            else []
        )

    @property
    def bundle(self) -> Json:
        """The nearest bundle; empty if there is none."""
        return self.bundles[0][0] if self.bundles else {}


def places(root: object, kind: str) -> Iterator[Place]:
    """Every resource of a kind, wherever it stands in the file.

    Raises:
        LimitExceeded: nested deeper than `DEPTH_MAX`.
    """
    stack: list[tuple[object, str, Json, tuple[tuple[Json, _Index], ...], bool, int]] = [
        (root, "", {}, (), False, 0)
    ]
    while stack:
        value, path, container, bundles, contained, depth = stack.pop()
        if depth > DEPTH_MAX:
            raise LimitExceeded(f"a file is nested deeper than {DEPTH_MAX}")
        if isinstance(value, list):
            stack += [
                (value[i], f"{path}[{i}]", container, bundles, contained, depth + 1)
                for i in range(len(value) - 1, -1, -1)
                if isinstance(value[i], dict | list)
            ]
            continue
        if not isinstance(value, dict):
            continue
        if "resourceType" in value and not contained:
            container = value
        if value.get("resourceType") in ("Bundle", "Parameters"):
            bundles = ((value, _index(value)), *bundles)
        if value.get("resourceType") == kind:
            yield Place(value, path, container, bundles)
        stack += [
            (
                inner,
                f"{path}.{name}".lstrip("."),
                container,
                bundles,
                contained or name == "contained",
                depth + 1,
            )
            for name, inner in reversed(value.items())
            if isinstance(inner, dict | list)
        ]
