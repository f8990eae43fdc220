import pytest

from bench.bench_train import Arm, load_for, settings_of
from bench.cases import Case


def test_an_epoch_more_than_a_training_has_is_refused_by_name() -> None:
    case = Case(
        "train", "sparse", "csr", "static", "64x8x10b128", 0.5, "cpu", "float32", 1, "digits", "seed", distribution="uniform"
    )
    arm = Arm(case, load_for(case), settings_of(case)._replace(epochs=2))
    for _ in range(2):
        arm.epoch()
    with pytest.raises(RuntimeError, match="sparse csr: expected at most 2 epochs, got a call for one more"):
        arm.epoch()
