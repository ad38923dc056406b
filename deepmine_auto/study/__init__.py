"""The record of truth: ledger, mirror, pruning, budget, finals."""
