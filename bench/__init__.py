"""The benchmark suite: a pytest plugin on pytest-benchmark, the cases, and what reads them."""
