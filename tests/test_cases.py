import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import cases, grids
from bench.cases import Case
from bench.grids import DEFAULT_OPS, OPS, TRAINED
from bench.selection import OwnModel, Selection
from bench.shapes import Shape
from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.masks import FULL
from sparse_models.updates import UPDATES
from tests.strategies import DEFAULT_LAYERS, OWN_LAYERS, RULES_OF

DEFAULT = Selection(
    ops=OPS,
    layers=None,
    updates=None,
    shapes=None,
    sparsities=None,
    devices=("cpu",),
    dtypes=("float32",),
    threads=(2,),
    regimes=("warm",),
    data=None,
    protocols=None,
    seeds=3,
    is_full=True,
)
OWN = OwnModel("a.py:net", "8x4b2", can_learn=True)
SHORT = DEFAULT._replace(ops=DEFAULT_OPS, is_full=False, dtypes=None, data=None)


def grid(selection: Selection = DEFAULT) -> list[Case]:
    return [case for op in selection.ops for case in cases.cases(op, selection)]


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=6), st.integers(1, 10**6))
def test_a_shape_is_read_as_it_is_written(sizes: list[int], batch: int) -> None:
    shape = Shape(tuple(sizes), batch)
    assert Shape.parse(str(shape)) == shape


@pytest.mark.parametrize("text", ["", "3", "3x4", "3b4", "0x3b1", "3x0b1", "3x4b0", "3x4b-1", "3x4b1b2", "x4b1", "3x4B1", "a"])
def test_a_bad_shape_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match=rf"expected a shape like 256x128b64 .* got '{text}'; "):
        Shape.parse(text)


def test_every_parameter_is_a_plain_string_or_number() -> None:
    assert {type(value) for case in grid() for value in case} <= {str, int, float}


def test_ids_tell_all_cases_of_an_operation_apart() -> None:
    everything = DEFAULT._replace(
        sparsities=(0.5, 0.9), devices=("cpu", "cuda"), dtypes=("float32", "float64"), threads=(1, 2), layers=tuple(LAYERS),
        regimes=("warm", "cold", "graph"), skews=(0.0, 0.25, 0.5),
    )  # fmt: skip
    for op in OPS:
        ids = [case.id for case in cases.cases(op, everything)]
        assert len(set(ids)) == len(ids), op


def test_every_layer_is_timed_in_every_operation_of_one_layer() -> None:
    for op in grids.OF_A_LAYER:
        assert {case.layer for case in cases.cases(op, DEFAULT)} == set(OWN_LAYERS)
    updated = {case.layer for case in cases.cases("update", DEFAULT)}
    assert updated == {name for name, layer in OWN_LAYERS.items() if layer.pattern.moves}


@pytest.mark.parametrize("op", OPS)
def test_another_librarys_layer_is_run_only_when_asked_for(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "another", type("Another", (LAYERS["csr"],), {"optional": True}))
    everything = DEFAULT._replace(model=OWN)
    assert "another" not in {case.layer for case in cases.cases(op, everything)}
    assert "another" in {case.layer for case in cases.cases(op, everything._replace(layers=("another",)))}


@pytest.mark.parametrize("op", ["update", "train"])
def test_a_rule_of_one_pattern_is_for_its_layers_alone(op: str) -> None:
    for layer in OWN_LAYERS:
        found = {case.update for case in cases.cases(op, DEFAULT._replace(layers=(layer,))) if case.model == "sparse"}
        fitting = {name for name, rule in UPDATES.items() if rule.fits(LAYERS[layer].pattern) and name != "static"}
        trained = fitting if LAYERS[layer].pattern is not FULL else set()
        assert found - {"static"} == (trained if op == "train" else set(RULES_OF[layer]))


def test_where_parts_and_updates_are_timed_the_step_is_too() -> None:
    steps = set(cases.cases("step", DEFAULT))
    for op in (*grids.PARTS, "update"):
        assert {case._replace(op="step", update="static") for case in cases.cases(op, DEFAULT)} <= steps


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("op", OPS)
def test_a_grid_has_a_case_once(op: str, device: str) -> None:
    for is_full in (False, True):
        found = list(cases.cases(op, DEFAULT._replace(devices=(device,), dtypes=None, is_full=is_full)))
        assert len(found) == len(set(found))
        if op == "update":
            assert {case.sparsity for case in found} <= {*grids.UPDATE_SPARSITIES, 0.5}  # 2:4's own


def test_regimes_are_an_axis_of_all_but_trainings() -> None:
    both = DEFAULT._replace(regimes=("warm", "cold"))
    for op in OPS:
        warm = list(cases.cases(op, DEFAULT))
        expected = warm if op in TRAINED else [case._replace(regime=regime) for case in warm for regime in ("warm", "cold")]
        assert list(cases.cases(op, both)) == expected


def test_skews_are_an_axis_of_all_but_trainings() -> None:
    for op in OPS:
        plain = list(cases.cases(op, DEFAULT))
        expected = plain if op in (*TRAINED, "pruned") else [case._replace(skew=skew) for case in plain for skew in (0.0, 0.5)]
        assert list(cases.cases(op, DEFAULT._replace(skews=(0.0, 0.5)))) == expected


def test_zeros_are_an_axis_of_the_forward_pass_and_by_default_of_layers_that_skip_them() -> None:
    found = {(case.layer, case.zeros) for case in grid() if case.zeros and case.op not in TRAINED}
    assert found == {("input_skipping", zeros) for zeros in grids.ZEROS if zeros}
    assert {case.op for case in grid(DEFAULT._replace(zeros=(0.25,))) if case.zeros} == {"forward", "threshold"}


def test_every_run_has_its_control_whatever_layer_is_asked_for() -> None:
    found = list(cases.cases("forward", DEFAULT._replace(layers=("csr",), sparsities=(0.5,), shapes=("8x8b4",))))
    assert [(case.model, case.layer) for case in found] == [("dense", "dense"), ("sparse", "csr")]


def test_the_control_is_dense_at_sparsity_0() -> None:
    for op in grids.OF_A_LAYER:
        grid = grids.GRIDS.get(op, grids.GRID)
        controls = [case for case in cases.cases(op, DEFAULT) if case.model == "dense"]
        assert {case.shape for case in controls} == {shape for shapes, _ in grid for shape in shapes}
        assert all((case.layer, case.sparsity) == ("dense", 0.0) for case in controls)


def test_default_sparsities_are_the_fields() -> None:
    assert {case.sparsity for case in cases.cases("step", DEFAULT) if case.model == "sparse"} == {0.5, 0.8, 0.9, 0.95, 0.99}


ON_GPU = DEFAULT._replace(devices=("cuda",), dtypes=None, regimes=None)


def test_a_cpu_is_warm_and_a_gpu_replays_with_cold_weights_where_a_model_has_them_cold() -> None:
    assert {case.regime for case in grid(DEFAULT._replace(regimes=None))} == {"warm"}
    for case in grid(ON_GPU):
        few = case.op == "forward" and Shape.parse(case.shape).batch <= grids.COLD_BATCH
        assert case.regime == ("warm" if case.op in TRAINED else "graph-cold" if few else "graph"), case
    assert {case.regime for case in grid(ON_GPU._replace(ops=("step",), regimes=("warm", "graph")))} == {"warm", "graph"}


def test_dense_is_timed_in_the_precisions_of_a_cpu_where_no_layer_is_asked_for_alone() -> None:
    rivals = SHORT._replace(rivals=("bfloat16",))
    found = {(case.op, case.model) for case in grid(rivals) if case.dtype == "bfloat16"}
    assert found == {(op, "dense") for op in ("forward", "step", "training_step")}
    assert {case.dtype for case in grid(rivals._replace(layers=("csr",)))} == {"float32"}
    assert {case.dtype for case in grid(rivals._replace(layers=("csr", "dense")))} == {"float32", "bfloat16"}
    assert {case.dtype for case in grid(rivals._replace(dtypes=("float64",)))} == {"float64"}


def test_the_default_grid_is_a_part_of_the_full_one_that_has_every_layer_and_what_saves_time_without_one() -> None:
    found, everything = set(grid(SHORT)), set(grid(DEFAULT))
    assert found < everything
    for op in ("forward", "step", "training_step"):
        assert {case.layer for case in found if case.op == op} == set(DEFAULT_LAYERS)
        assert {case.layer for case in everything if case.op == op} == set(OWN_LAYERS)
        assert {case.sparsity for case in found if (case.op, case.layer) == (op, "tiled")} == set(grids.SPARSITIES)
        assert {case.sparsity for case in found if (case.op, case.layer) == (op, "masked")} == {0.9}
        assert {case.sparsity for case in found if (case.op, case.model) == (op, "narrow")} == {0.9}
    assert {(case.data, case.protocol) for case in found if case.op == "train"} == {("digits", "tuned")}


def test_kernels_that_keep_every_weight_stand_beside_dense_once_where_rivals_are_asked_for() -> None:
    for selection in (SHORT, DEFAULT):
        found = grid(selection)
        places = {(case.op, case.shape) for case in found if case.op in grids.WHOLE and case.model == "dense"}
        unpruned = [case for case in found if case.model == "unpruned"]
        assert {(case.op, case.shape) for case in unpruned} == places
        assert {(case.layer, case.sparsity) for case in unpruned} == {("block16", 0.0)}
        assert len(unpruned) == len(places)
        left = selection._replace(devices=("cuda",)), selection._replace(layers=("block16",)), SHORT._replace(model=OWN)
        assert all(case.model != "unpruned" for one in left for case in grid(one))
        assert any(case.model == "unpruned" for case in grid(selection._replace(layers=("dense", "csr"))))


def test_what_is_asked_for_by_name_is_there_as_in_the_full_grid() -> None:
    assert {case.sparsity for case in grid(SHORT._replace(layers=("csr", "masked"))) if case.model == "sparse"} == {
        *grids.SPARSITIES, *grids.TRAINING_SPARSITIES
    }  # fmt: skip
    assert {case.op for case in grid(SHORT._replace(ops=("backward",)))} == {"backward"}
    teacher = grid(SHORT._replace(ops=("train",), data=("teacher",)))
    assert {case.protocol for case in teacher} == set(grids.PROTOCOLS)
    parts = grid(SHORT._replace(ops=("step", "optimizer")))
    assert {case.shape for case in parts if case.op == "optimizer"} < {case.shape for case in parts if case.op == "step"}


def test_precisions_are_rivals_on_a_gpu_alone() -> None:
    assert {case.dtype for case in grid(DEFAULT._replace(dtypes=None))} == {"float32"}
    whole = [case for case in grid(ON_GPU) if case.op in grids.WHOLE]
    assert {case.dtype for case in whole if case.model == "sparse"} == {"float32", "bfloat16"}
    assert {case.dtype for case in whole if case.model == "dense"} == {"float32", "bfloat16", "tf32"}
    assert {case.dtype for case in grid(ON_GPU) if case.op not in grids.WHOLE} == {"float32"}
    asked = grid(ON_GPU._replace(ops=("forward",), dtypes=("tf32",)))
    assert {(case.dtype, case.model) for case in asked} == {("tf32", model) for model in ("sparse", "dense", "narrow")}


def test_a_grid_has_a_layer_in_the_precisions_of_its_own_unless_others_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LAYERS["two_four"], "devices", ("cpu", "cuda"))
    for on_gpu in (ON_GPU, ON_GPU._replace(is_full=False)):
        whole = [case for case in grid(on_gpu._replace(ops=("forward", "step"))) if case.layer == "two_four"]
        assert {case.dtype for case in whole} == {"bfloat16"}
    asked = ON_GPU._replace(ops=("forward",), dtypes=("float32",))
    assert any(case.layer == "two_four" for case in grid(asked))
    monkeypatch.setattr(LAYERS["two_four"], "devices", ("cpu",))  # where none runs, it is told what is missing
    assert {case.dtype for case in grid(ON_GPU) if case.layer == "two_four"} == {"float32", "bfloat16"}


def test_on_a_gpu_the_default_grid_has_what_one_run_can_decide() -> None:
    default = grid(ON_GPU._replace(ops=DEFAULT_OPS, is_full=False, data=None))
    layers = [case for case in default if case.model == "sparse" and case.op != "train"]
    assert {case.sparsity for case in layers if case.layer == "tiled"} == set(grids.GPU_SPARSITIES)
    assert {case.sparsity for case in layers if case.layer not in ("tiled", "two_four")} == {0.9}
    assert "csr_linear" not in {case.layer for case in layers}
    assert {case.dtype for case in layers if case.op == "training_step"} == {"float32"}
    steps = [case for case in default if case.op == "training_step" and case.model == "dense"]
    assert {case.dtype for case in steps} == {"float32", "bfloat16", "tf32"}
    by_name = grid(ON_GPU._replace(ops=("training_step",), is_full=False, data=None, layers=("two_four",)))
    assert "bfloat16" in {case.dtype for case in by_name if case.layer == "two_four"}  # a GPU has it in no other
    in_full = {case.layer for case in grid(ON_GPU) if (case.op, case.dtype) == ("training_step", "bfloat16")}
    assert "tiled" in in_full
    assert "csr_linear" in {case.layer for case in grid(ON_GPU)}


def test_a_layer_that_does_not_care_is_timed_on_a_gpu_at_one_sparsity_unless_asked() -> None:
    forward = ON_GPU._replace(ops=("forward",), shapes=("64x64b4",), dtypes=("float32",))
    assert [case.sparsity for case in grid(forward) if case.layer == "masked"] == [0.9]
    assert len([case for case in grid(forward._replace(sparsities=(0.5, 0.8))) if case.layer == "masked"]) == 2
