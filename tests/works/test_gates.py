"""What of a case its gate looks at."""

import pytest

from bench.cases import Case
from bench.works import gates


@pytest.mark.parametrize(("device", "rows"), [("cpu", gates.GATE_ROWS), ("cuda", 4096), ("cuda:1", 4096)])
def test_a_gpu_is_gated_at_the_very_batch_that_is_timed(monkeypatch: pytest.MonkeyPatch, device: str, rows: int) -> None:
    seen: list[int] = []
    monkeypatch.setattr(gates, "_gate_failure", lambda layer, key, layout, threads: seen.append(key[2]))
    monkeypatch.setattr(gates, "_chain_failure", lambda layer, keys, threads, *, fused: seen.extend(key[2] for key in keys))
    case = Case("training_step", "sparse", "csr", "static", "6x5x4b4096", 0.5, device, "float32", 1)
    gates.pass_gate(case, "csr", "batch-major")
    assert seen == [rows] * 4
