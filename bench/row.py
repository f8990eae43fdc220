"""The row: one plain record per measured case, which is saved, printed and compared.

Plain names; seconds, bytes, FLOPs; fractions in [0, 1]. `dense_*` is the same figure of the dense reference.
"""

from typing import Any

from bench.cases import Case, Shape
from bench.pairing import CONFIDENCE, Race
from sparse_models.costs import Size

SCHEMA = 1

Row = dict[str, Any]


def row_of(case: Case, race: Race, size: Size, **more: Any) -> Row:
    """Return the row of a case from its pairs and its model's size; `more` are the operation's own fields.

    Raises KeyError where the operation leaves out its FLOPs, or the dense reference's.
    """
    shape = Shape.parse(case.shape)
    speedup = race.speedup
    seconds, dense_seconds = (sorted(times)[len(times) // 2] for times in race)
    return {
        "schema": SCHEMA,
        **case._asdict(),
        "shape": shape.chain,
        "batch": shape.batch,
        "in_features": shape.sizes[0],
        "out_features": shape.sizes[-1],
        **size._asdict(),
        "regime": "warm",
        "seconds": seconds,
        "dense_seconds": dense_seconds,
        "speedup": speedup.median,
        "speedup_low": speedup.low,
        "speedup_high": speedup.high,
        "confidence": CONFIDENCE,
        "pairs": len(race.seconds),
        "pair_seconds": race.seconds,
        "pair_dense_seconds": race.dense_seconds,
        "flops_counted": more.pop("flops_counted"),
        "flops_executed": more.pop("flops_executed"),
        "dense_flops_counted": more.pop("dense_flops_counted"),
        "dense_flops_executed": more.pop("dense_flops_executed"),
        **more,
    }
