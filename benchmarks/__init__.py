"""What choreo costs, measured against the plainest program that gives the same guarantee. See docs/benchmarks.md."""
