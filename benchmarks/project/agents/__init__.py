"""Agents of the benchmarks."""
