"""A bank's transfers as a saga: debit, credit, notify (topologies/bank.yaml)."""
