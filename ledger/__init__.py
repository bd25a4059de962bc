"""rxledger: the embedded prescription ledger."""
