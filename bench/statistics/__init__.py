"""Numbers in, numbers out: intervals, tests, verdicts, changes. No PyTorch and no pytest."""
