"""The command of a report that measures its run again."""

from bench.report.machine import again
from tests.helpers.reports import content


def test_kernels_that_keep_every_weight_come_with_dense_and_are_not_asked_for_by_their_layer() -> None:
    assert content().rows
    [asked] = [one for one in again(content()).commands if "pytest bench" in one]
    assert sorted(asked.partition("--layer ")[2].partition(" ")[0].split(",")) == ["dense", "tiled"]
