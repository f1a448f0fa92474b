"""Stores of table rows: committed state of one table and partition."""
