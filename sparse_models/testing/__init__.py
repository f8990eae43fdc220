"""The definition of a sparse layer, and the gates that every layer must pass before anything is timed with it."""

from sparse_models.testing.chain import gate_chain, gate_loss
from sparse_models.testing.definition import Definition, Problem, Term, define
from sparse_models.testing.gate import gate

__all__ = ["Definition", "Problem", "Term", "define", "gate", "gate_chain", "gate_loss"]
