"""The tables. `SCHEMA_VERSION` names them; a store of a newer version is refused, not guessed at."""

from __future__ import annotations

__all__ = ["SCHEMA", "SCHEMA_VERSION"]

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE feed(
    id INTEGER PRIMARY KEY, feed BLOB NOT NULL UNIQUE, district TEXT NOT NULL, author BLOB NOT NULL,
    incarnation INTEGER NOT NULL, body BLOB NOT NULL, signature BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE branch(
    feed INTEGER NOT NULL, branch INTEGER NOT NULL, parent INTEGER, parts INTEGER,
    sequence INTEGER NOT NULL, link BLOB NOT NULL, stamp INTEGER NOT NULL, checksum BLOB NOT NULL,
    PRIMARY KEY(feed, branch)) WITHOUT ROWID;
CREATE TABLE document(
    id INTEGER PRIMARY KEY, document BLOB NOT NULL, district TEXT NOT NULL, tag BLOB NOT NULL,
    entries INTEGER NOT NULL, bare INTEGER NOT NULL, dropped INTEGER NOT NULL, digest BLOB NOT NULL,
    checksum BLOB NOT NULL);
CREATE UNIQUE INDEX document_place ON document(document, district);
CREATE INDEX document_tag ON document(tag);
CREATE TABLE entry(
    arrival INTEGER PRIMARY KEY, feed INTEGER NOT NULL, branch INTEGER NOT NULL, sequence INTEGER NOT NULL,
    stamp INTEGER NOT NULL, document INTEGER NOT NULL, lane INTEGER NOT NULL, epoch INTEGER NOT NULL,
    commitment BLOB NOT NULL, sealed BLOB, sealed_hash BLOB, signature BLOB,
    previous BLOB NOT NULL, link BLOB NOT NULL);
CREATE UNIQUE INDEX entry_position ON entry(feed, sequence, branch);
CREATE INDEX entry_document ON entry(document);
CREATE INDEX entry_detached ON entry(feed) WHERE branch < 0;
CREATE INDEX entry_link ON entry(substr(link, 1, 8));
CREATE TABLE proof(feed BLOB PRIMARY KEY, proof BLOB NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE command(
    command BLOB PRIMARY KEY, document BLOB NOT NULL, link BLOB NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE patient(key BLOB NOT NULL, document BLOB NOT NULL, PRIMARY KEY(key, document)) WITHOUT ROWID;
CREATE TABLE patient_copy(
    tag BLOB NOT NULL, document BLOB NOT NULL, checksum BLOB NOT NULL,
    PRIMARY KEY(tag, document, checksum)) WITHOUT ROWID;
CREATE TABLE snapshot(document BLOB PRIMARY KEY, basis BLOB NOT NULL, sealed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE audit(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL, chain BLOB NOT NULL);
CREATE TABLE horizon(
    node BLOB PRIMARY KEY, stamp INTEGER NOT NULL, heard INTEGER NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID;
"""
"""Detached entries stand in `entry` with a negative branch until their feed reaches them. `document.bare` counts entries
without content, `dropped` says that retention dropped it. `document_tag` and `patient_copy` find the same rows a second
way, so that a damaged index or key is noticed and not mistaken for absence."""
