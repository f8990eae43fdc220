"""The definition of a sparse layer, and the gates that every layer must pass before anything is timed with it."""

from sparse_models.testing.chain import away_from_corners, gate_chain, gate_loss
from sparse_models.testing.definition import Definition, Problem, Term, define
from sparse_models.testing.gate import gate

__all__ = ["Definition", "Problem", "Term", "away_from_corners", "define", "gate", "gate_chain", "gate_loss"]
