"""The bank under faults: feed, model, invariants, schedule, rounds (docs/reliability.md)."""
