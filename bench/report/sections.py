"""What a report tells in, its questions in their order out, each with its figures or with what is missing for them."""

from bench.findings.time_to_accuracy.verdict import sentence
from bench.grids import PARTS
from bench.report.content import Content
from bench.report.figure import Section
from bench.report.figures.curves import learning_curves, time_to_accuracy
from bench.report.figures.learning import accuracy
from bench.report.figures.pruned import pruned
from bench.report.figures.roofline import roofline
from bench.report.figures.several import history, machines
from bench.report.figures.speed_up import speed_up
from bench.report.figures.step_time import step_time

PYTEST = ".venv/bin/pytest bench"


def sections_of(content: Content) -> list[Section]:
    """Return the sections of the page between the answer and the full table."""
    return [
        Section(
            "speed", "From which sparsity on does it pay?", [*speed_up(content)],
            "No operation was measured at a sparsity between 0 and 1.", f"{PYTEST} --op forward,step",
        ),
        Section(
            "step", "Where does a step's time go?", [*step_time(content)],
            "The parts of a step were not measured.", f"{PYTEST} --op step,{','.join(PARTS)},update",
        ),
        Section(
            "accuracy", "What does it cost in accuracy?",
            [*time_to_accuracy(content), *accuracy(content), *learning_curves(content), *pruned(content)],
            "Nothing was trained.", f"{PYTEST} --op train,pruned",
            [text for one in content.answer.time_to_accuracy if (text := sentence(one))],
        ),
        Section(
            "roofline", "What bounds the kernels?", [*roofline(content)],
            "No operation of a single product was measured.", f"{PYTEST} --op forward",
        ),
        Section(
            "runs", "What do other runs say?", [*machines(content), *history(content)],
            "One run was asked for; name several to set machines side by side, or runs of one machine one after the other.",
            ".venv/bin/python -m bench report RUN RUN",
        ),
    ]  # fmt: skip
