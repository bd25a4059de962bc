"""What makes a node of a ledger: one process that an operator installs and forgets."""
