"""Hypothesis on shared machines: no example has a deadline, and continuous integration draws the same ones every time."""

import os

from hypothesis import settings

from tests.helpers.kept_fork_servers import fork_servers
from tests.helpers.kernel_checks import poisoned, watcher

__all__ = ["fork_servers", "poisoned", "watcher"]  # fixtures

# Compiling dense takes ten seconds where nothing of it is known yet; the tests that are about it ask for it.
os.environ["TORCH_COMPILE_DISABLE"] = "1"

settings.register_profile("local", deadline=None, max_examples=60)
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
