"""What is told of zeros among activations."""

from bench.findings.answer import answer_of
from bench.runs.saved import as_row
from bench.tables.answer import lines
from tests.helpers.rows import WIDE, row, saved_row


def test_shares_of_zero_inputs_stand_beside_one_another() -> None:
    rows = [
        row(zeros=zeros, layer="input_skipping", speedup=value, speedup_low=value, speedup_high=value)
        for zeros, value in ((0.0, 0.5), (0.9, 4.0))
    ]
    text = "\n".join(lines(answer_of(rows), WIDE))
    assert "Forward speed-up over dense by the share of zero inputs, 8x8 batch 4 (cpu, float32, 2 threads)" in text
    assert "4 [4 4] ?" in text or "4.00 [4.00 4.00] ?" in text
    assert "by the share of zero inputs" not in "\n".join(lines(answer_of(rows[:1]), WIDE))


def test_what_a_threshold_saves_and_costs_is_told_by_data_and_network() -> None:
    base = {"op": "threshold", "layer": "input_skipping", "seeds": 3, "test_samples": 360, "dense_test_accuracy": 0.975}
    rows = [
        row(**base, data=data, zeros=zeros, sparsity=0.0, hidden_zeros=[0.625, 0.5], test_accuracy=accuracy)
        for data in ("digits", "mnist5k")
        for zeros, accuracy in ((0.0, 0.975), (0.9, 0.925))
    ]
    text = "\n".join(lines(answer_of(rows), WIDE))
    for data in ("digits", "mnist5k"):
        assert f"Small activations set to 0, {data} 8x8 batch 4 (cpu, float32, 2 threads)" in text
    assert "against trained dense of 97.5% (3 seeds, 360 test samples)" in text
    [first, last, *_] = [line.split() for line in text.splitlines() if line.split()[:1] == ["input_skipping"]]
    assert first[2:7] == ["0", "0.62", "0.50", "97.5%", "0.0"]
    assert last[2:7] == ["0.9", "0.62", "0.50", "92.5%", "5.0"]


def test_a_threshold_is_told_of_a_saved_run_too_where_the_file_has_all_of_it() -> None:
    what = {"op": "threshold", "layer": "input_skipping", "data": "digits", "seeds": 3, "test_samples": 360}
    saved = saved_row(**what, dense_test_accuracy=0.975, hidden_zeros=[0.625, 0.5], test_accuracy=0.925)
    told = "\n".join(lines(answer_of([as_row(saved)]), WIDE))
    assert "against trained dense of 97.5% (3 seeds, 360 test samples)" in told
    assert "0.62 0.50" in told
    for lacking in ("hidden_zeros", "seeds", "test_samples"):
        setattr(saved, lacking, None)
        assert "Small activations" not in "\n".join(lines(answer_of([as_row(saved)]), WIDE))
