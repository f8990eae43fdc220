"""Two runs of the suite that interleave their processes: each waits, before every fresh process, until it is its turn.

`python -m bench continuous` starts both and hands out the turns (bench.engine.two_commits). A run asks by a line on one pipe,
goes on at the answer on the other, and its turn lasts until it asks again or ends. The two pipes are named in the environment.
"""

import json
import os
import time
from pathlib import Path

VARIABLE = "SPARSE_MODELS_TURNS"
REPORT = "report"  # asked for once all is measured


class Interleaving:
    """One run's side: it waits where it was given pipes, and does not where it runs by itself."""

    def __init__(self) -> None:
        """Take up the pipes that the environment names."""
        asking, _, answering = os.environ.get(VARIABLE, "").partition(",")
        self._pipes = (int(asking), int(answering)) if answering else None

    @property
    def is_alone(self) -> bool:
        """Whether this run takes no turns with another."""
        return self._pipes is None

    def take(self, what: str) -> float:
        """Wait for the turn to do something, and return the seconds waited."""
        if self._pipes is None:
            return 0.0
        start = time.monotonic()
        ask, answer = self._pipes
        os.write(ask, json.dumps({"ask": what, "code": str(Path(__file__).parent)}).encode() + b"\n")
        if not os.read(answer, 1):
            raise KeyboardInterrupt  # the other end is gone, and so is the use of this run
        return time.monotonic() - start
