"""Three real brokers: nodes die, stop, freeze and come back while an exactly-once workload runs."""
