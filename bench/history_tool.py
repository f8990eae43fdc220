"""One case over the saved runs of one machine."""

import argparse
from collections.abc import Callable

HELP = "look back: cases over the runs of one machine"


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Print the history."""
    tell("")
    return 0
