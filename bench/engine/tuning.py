"""Jobs in, the variants of our own kernels out: known, or measured in one fresh process before anything is timed.

All processes of a run are given the same, and measure none themselves.
"""

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from bench.engine.forkserver import ForkServer
from bench.engine.jobs import Job
from bench.works.tuning import as_tuned, has_variants
from sparse_models.kernels.choice import ASKED
from sparse_models.kernels.variant import Choice


class Tuned(NamedTuple):
    """Choices, plain, by the class of the works; which of them were measured now; and what the environment asks for instead."""

    choices: Mapping[str, Any] = MappingProxyType({})
    measured: Sequence[str] = ()
    asked: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What a saved run says of the kernels' variants."""
        chosen = {name: str(Choice.of(choice).variant) for name, choice in sorted(self.choices.items())}
        return {"asked": self.asked or "measured", "chosen": chosen, "measured_seconds": self.seconds}

    @property
    def seconds(self) -> float:
        """How long measuring took now."""
        return sum(float(self.choices[name]["seconds"]) for name in self.measured)

    def __str__(self) -> str:
        """Tell it in a sentence."""
        if self.asked:
            return f"kernels: the variant is fixed ({ASKED}={self.asked})"
        before = len(self.choices) - len(self.measured)
        now = f"{len(self.measured)} measured now in {self.seconds:.1f} s, " if self.measured else ""
        return f"kernels: a variant for each of {len(self.choices)} classes of shapes: {now}{before} known from before"


def tuned(jobs: Sequence[Job], fork_server: ForkServer) -> Tuned | None:
    """Return the variants that the jobs need; None where none of them has any."""
    cases = dict.fromkeys(as_tuned(job.case) for job in jobs if has_variants(job.case))
    if not cases:
        return None
    asked = os.environ.get(ASKED, "").strip()
    if asked not in ("", "measured"):
        return Tuned(asked=asked)
    found = Tuned()
    for said in fork_server.run({"cases": [], "call": ["bench.engine.worker", "tuned", [list(cases)]]}):
        found = Tuned(said["choices"], said["measured"]) if "choices" in said else found
    return found
