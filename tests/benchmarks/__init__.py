"""What nats-jobs costs, beside a reference in the same run. `python tests/benchmarks --help`."""
