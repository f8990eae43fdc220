"""The exceptions of the package.

ValueError
  InputError        what the caller gave cannot be used
ArithmeticError
  DivergedError     a training whose loss is no longer a number
AssertionError
  GateError         a layer disagrees with its definition
ImportError
  AbsentError       the package that an optional layer or data set needs cannot be imported
"""


class InputError(ValueError):
    """What the caller gave cannot be used: one sentence with what was expected, what came and what to do."""


class DivergedError(ArithmeticError):
    """A training's loss is no longer a finite number."""


class GateError(AssertionError):
    """A layer disagrees with the definition of a sparse layer, so nothing may be timed with it."""


class AbsentError(ImportError):
    """The package that an optional layer or data set needs cannot be imported; the message says how to install it."""
