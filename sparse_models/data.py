"""Three data sets, each with a fixed split into training, validation and test."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.models import dense_mlp, draw


class Split(NamedTuple):
    """Inputs [samples, features], float32, and labels [samples], int64."""

    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Split":
        """Return the split on a device, its inputs in a dtype."""
        return Split(self.inputs.to(device, dtype), self.labels.to(device))


class Data(NamedTuple):
    """Training, validation (for choosing settings) and test (looked at once) samples of `classes` classes."""

    train: Split
    validation: Split
    test: Split
    classes: int

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Data":
        """Return the data on a device, its inputs in a dtype."""
        train, validation, test = (split.to(device, dtype) for split in self[:3])
        return Data(train, validation, test, self.classes)


def _split(inputs: Tensor, labels: Tensor, train: int, validation: int, classes: int) -> Data:
    sizes = [train, validation, len(labels) - train - validation]
    parts = [Split(*part) for part in zip(inputs.split(sizes), labels.split(sizes), strict=True)]
    return Data(parts[0], parts[1], parts[2], classes)


def random_labels() -> Data:
    """100 normal features, 10 random labels: nothing to learn but the 4,096 training samples themselves.

    No other sample tells anything about them, so the validation split, by which settings are chosen, is the training split.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4096 + 1024, 100, generator=generator)
    labels = torch.randint(10, (len(inputs),), generator=generator)
    data = _split(inputs, labels, 4096, 0, 10)
    return data._replace(validation=data.train)


def teacher_student() -> Data:
    """100 normal features, labelled by a random dense 100-4-10 MLP: learnable, without noise, of known cause."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(3072 + 2 * 1024, 100, generator=generator)
    teacher = dense_mlp([(w.float(), b.float()) for w, b in draw((100, 4, 10), generator)])
    with torch.no_grad():
        outputs = teacher(inputs)
    # Centred outputs keep the classes balanced enough that guessing the largest one stays near chance.
    return _split(inputs, ((outputs - outputs.mean(0)) / outputs.std(0)).argmax(1), 3072, 1024, 10)


def digits() -> Data:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels in [0, 1] (Alpaydin and Kaynak 1998, UCI), 60/20/20 %."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  # an optional dependency that takes a second to import

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(2))
    inputs = torch.from_numpy(pixels).float()[order] / 16
    return _split(inputs, torch.from_numpy(labels).long()[order], 1077, 360, 10)


DATA: dict[str, Callable[[], Data]] = {"random": random_labels, "teacher": teacher_student, "digits": digits}
