"""Loads the benchmark plugin, so that its options are known from any folder of the checkout."""

pytest_plugins = ["bench.plugin"]
