"""The name of a data set in, its samples out: one of DATA, a file of the user's (x and y in a .npz), or one of OpenML's.

Those that are the user's are split 60/20/20 % into training, validation and test in an order drawn by a fixed seed, and each
feature is standardised by its mean and standard deviation over the training part.
"""

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from sparse_models.data import DATA, Data, shuffled, split
from sparse_models.errors import AbsentError, InputError

OPENML = "openml:"
FORMS = ("FILE.npz", f"{OPENML}NAME")  # of names that stand for the user's own data
FEWEST = 5  # samples of which each part of the split has one


def is_own(name: str) -> bool:
    """Tell whether a name stands for a file or for one of OpenML's data sets."""
    return name.endswith(".npz") or name.startswith(OPENML)


@cache
def load(name: str) -> Data:
    """Return the data set of this name, made or read once a process; raises InputError, one sentence, where there is none."""
    if name.startswith(OPENML):
        return from_openml(name.removeprefix(OPENML))
    return from_file(Path(name)) if is_own(name) else DATA.find(name)()


def from_file(path: Path) -> Data:
    """Return the data set of a .npz file: x [samples, features], numbers, and y [samples], whole numbers from 0 on.

    Raises InputError, one sentence, for anything else.
    """
    import numpy as np  # noqa: PLC0415  # torch does without it

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # an array alone is no context
            missing = [name for name in ("x", "y") if name not in arrays]
            if missing:
                held = ", ".join(arrays.files) or "none"
                raise InputError(f"expected arrays x and y in {path}, got {held}; write it by numpy.savez(path, x=x, y=y)")
            return own_data(arrays["x"], arrays["y"], str(path))
    except InputError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, EOFError, BadZipFile) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"expected a file that numpy.savez wrote at {path}, got none that can be read ({reason}); check the path"
        ) from None


def from_openml(name: str) -> Data:
    """Return a data set of OpenML's (Vanschoren et al. 2014) by scikit-learn's fetcher, which keeps what it fetched.

    Raises InputError, one sentence, for a name that OpenML does not know, for no network, and for what is not to be classified
    by numbers; AbsentError where scikit-learn is not installed.
    """
    if not re.fullmatch(r"[\w.()-]{1,100}", name):
        raise InputError(f"expected the name of one of OpenML's data sets, got {name!r}; for example {OPENML}mnist_784")
    try:
        import numpy as np  # noqa: PLC0415
        from sklearn.datasets import fetch_openml  # noqa: PLC0415  # an optional dependency that takes a second to import
    except ImportError:
        raise AbsentError(
            "expected the package scikit-learn, which fetches from OpenML, got none; pip install scikit-learn"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of several versions it takes the oldest that is active, and says so
            x, y = fetch_openml(name, as_frame=False, return_X_y=True, parser="liac-arff")
    except OSError as error:
        raise InputError(
            f"expected to reach OpenML for {name!r}, which is not in scikit-learn's cache, got {_first_line(error)}; "
            "fetch it once where there is a network, or take a file.npz"
        ) from None
    except (ValueError, ImportError) as error:
        raise InputError(f"expected one of OpenML's data sets, got {name!r} ({_first_line(error)}); see openml.org") from None
    if hasattr(x, "toarray"):  # a sparse matrix
        x = x.toarray()
    if y is None or y.ndim != 1 or y.dtype.kind == "f":
        raise InputError(f"{OPENML}{name}: expected one class a sample, got other targets; take a data set of classes")
    return own_data(x, np.unique(y.astype(str), return_inverse=True)[1], OPENML + name)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def own_data(x: Any, y: Any, name: str) -> Data:
    """Return the split and standardised data of numpy arrays x [samples, features] and y [samples].

    Raises InputError, one sentence that begins with `name`, for other shapes, numbers that are not finite, or labels that are
    not each whole number from 0 on.
    """
    import numpy as np  # noqa: PLC0415

    if x.ndim != 2 or y.shape != x.shape[:1] or min(x.shape) < 1:
        raise InputError(
            f"{name}: expected x [samples, features] and y [samples], got {list(x.shape)} and {list(y.shape)}; reshape them"
        )
    if len(x) < FEWEST:
        raise InputError(f"{name}: expected at least {FEWEST} samples, got {len(x)}; add some")
    if x.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected numbers in x, got {x.dtype}; turn categories into numbers")
    if y.dtype.kind not in "biu":
        raise InputError(f"{name}: expected whole numbers in y, got {y.dtype}; number the classes from 0 on")
    with np.errstate(over="ignore"):  # what is too large is told below
        inputs, labels = torch.from_numpy(x.astype("float32")), torch.from_numpy(y.astype("int64"))
    if not inputs.isfinite().all():
        count = int((~inputs.isfinite()).sum())
        raise InputError(f"{name}: expected finite numbers in x, got {count} that are not; replace them or leave them out")
    found = labels.unique()
    if len(found) < 2 or not torch.equal(found, torch.arange(len(found), device=found.device)):
        told = f"{len(found)} from {int(found[0])} to {int(found[-1])}"
        raise InputError(
            f"{name}: expected labels 0, 1 and so on, each at least once, got {told}; number the classes from 0 on"
        )
    order = shuffled(len(labels), 4)
    part = len(labels) // 5
    return standardised_features(split(inputs[order], labels[order], len(labels) - 2 * part, part, len(found)))


def standardised_features(data: Data) -> Data:
    """Return data whose features have mean 0 and standard deviation 1 over the training part; constant ones are 0 there."""
    inputs = data.train.inputs.double()
    mean, deviation = inputs.mean(0), inputs.std(0, correction=0)
    deviation = torch.where(deviation > 1e-12 * inputs.abs().amax(0), deviation, 1.0)  # less than that is rounding

    def scaled(x: Tensor) -> Tensor:
        return ((x.double() - mean) / deviation).float()

    train, validation, test = (part._replace(inputs=scaled(part.inputs)) for part in data[:3])
    return Data(train, validation, test, data.classes)
