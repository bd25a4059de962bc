"""Where entries live on disk: the port, and SQLite behind it."""

from ledger.store.lifecycle import create_store, open_store, restore_store
from ledger.store.port import Added, BranchRow, FeedRow, Head, Store, StoredEntry
from ledger.store.sqlite import SQLiteStore

__all__ = [
    "Added",
    "BranchRow",
    "FeedRow",
    "Head",
    "SQLiteStore",
    "Store",
    "StoredEntry",
    "create_store",
    "open_store",
    "restore_store",
]
