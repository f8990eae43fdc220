"""Which trainings there are: arms, data sets, protocols, seeds, shapes."""

from typing import Any

import pytest

from bench import cases, grids
from sparse_models.data import DATA
from sparse_models.layers import LAYERS
from sparse_models.masks import FULL, UNSTRUCTURED
from sparse_models.updates import UPDATES
from tests.strategies import DEFAULT_LAYERS, OWN_LAYERS
from tests.test_cases import DEFAULT, SHORT, grid

RIVALS = {name for name, layer in DEFAULT_LAYERS.items() if layer.pattern not in (FULL, UNSTRUCTURED)}


def test_every_update_rule_is_trained_and_every_moving_one_is_timed() -> None:
    everywhere = DEFAULT._replace(layers=tuple(OWN_LAYERS))
    assert {case.update for case in cases.cases("train", everywhere)} == set(UPDATES)
    assert {case.update for case in cases.cases("update", everywhere)} == {name for name, rule in UPDATES.items() if rule.moves}


def test_the_experiment_has_every_arm_data_set_protocol_and_seed() -> None:
    arms = {(case.model, case.update) for case in cases.cases("train", DEFAULT)}
    rules = [name for name, rule in UPDATES.items() if rule.fits(LAYERS["tiled"].pattern)]
    full = {("dense", "static"), ("eager", "static"), ("compiled", "static")}
    at_a_sparsity = {("narrow", "static"), *(("sparse", rule) for rule in rules)}
    assert arms == full | at_a_sparsity
    runs = [(case.data, case.protocol, case.seed, *case[1:6]) for case in cases.cases("train", DEFAULT)]
    arms_at_all = len(full) + len(at_a_sparsity) * len(grids.FULL_TRAINING_SPARSITIES) + len(RIVALS)
    assert len(runs) == len(set(runs)) == (len(DATA) * 2 - 1) * 3 * arms_at_all
    asked = DEFAULT._replace(protocols=grids.PROTOCOLS)
    assert len(list(cases.cases("train", asked))) == len(DATA) * 2 * 3 * arms_at_all


def test_dense_is_trained_under_autocast_where_a_cpu_multiplies_bfloat16_and_float32_is_asked_for() -> None:
    able = SHORT._replace(ops=("train",), rivals=("bfloat16",))
    assert [case.model for case in grid(able) if case.seed == 0] == ["dense", "autocast", *["sparse"] * 5, "narrow"]
    for other in able._replace(rivals=()), able._replace(dtypes=("float64",)), able._replace(devices=("cuda",)):
        assert "autocast" not in {case.model for case in grid(other)}


def test_nothing_is_narrower_than_dense_where_every_weight_is_kept() -> None:
    asked = SHORT._replace(ops=("train",), data=("digits",), layers=("block16",), updates=("static",), sparsities=(0.0, 0.8))
    arms = {(case.model, case.sparsity) for case in grid(asked)}
    assert arms == {("dense", 0.0), ("sparse", 0.0), ("sparse", 0.8), ("narrow", 0.8)}


def test_networks_of_the_shapes_asked_for_are_trained_on_the_data_that_fit_them() -> None:
    asked = SHORT._replace(
        ops=("train",), shapes=("64x30x10b8", "100x20x30x10b16", "64x10b8"), data=("digits", "teacher", "mnist5k")
    )
    shapes = {(case.data, case.shape) for case in grid(asked)}
    assert shapes == {("digits", "64x30x10b8"), ("digits", "64x10b8"), ("teacher", "100x20x30x10b16")}
    assert {case.shape for case in grid(asked) if case.model == "narrow"} == {"64x30x10b8", "100x20x30x10b16"}
    beside = {(case.data, case.shape) for case in grid(asked._replace(ops=("train", "forward"))) if case.op == "train"}
    assert beside - shapes == {("mnist5k", "784x256x256x10b128")}
    assert len({case.id for case in grid(asked)}) == len(grid(asked))


def test_by_default_the_rules_of_the_answer_are_trained_and_by_name_any() -> None:
    by_default = {case.update for case in grid(SHORT) if case.op == "train"}
    assert by_default == {"static", "set", "rigl"}  # and srigl, on layers of its pattern
    [asked] = [case for case in grid(SHORT._replace(ops=("train",), data=("digits",), updates=("gmp",), seeds=1,
        protocols=("seed",))) if case.model == "sparse"]  # fmt: skip
    assert asked.update == "gmp"


def test_what_is_told_as_a_rival_is_trained_too_by_default_as_it_was_drawn() -> None:
    def arms(**asked: Any) -> set[tuple[str, str]]:
        found = grid(SHORT._replace(ops=("train",), **asked))
        return {(case.layer, case.update) for case in found if case.model == "sparse"}

    assert {"block16", "compact"} <= RIVALS
    best = {("tiled", rule) for rule in ("static", "set", "rigl")}
    assert arms() == best | {(name, "static") for name in RIVALS}
    others: list[dict[str, Any]] = [{"data": ("digits",)}, {"devices": ("cuda",)}]
    assert all(arms(**other) == best for other in others)
    assert arms(updates=("rigl",)) == {("tiled", "rigl")}
    assert arms(layers=("block16",)) == {("block16", rule) for rule in ("static", "set", "rigl")}


def test_distributions_are_an_axis_of_trainings_and_the_usual_one_goes_without_saying() -> None:
    both = DEFAULT._replace(ops=("train", "forward"), distributions=("uniform", "erk"))
    plain, found = grid(both._replace(distributions=("uniform",))), grid(both)
    assert [case for case in found if case.distribution != "erk"] == plain
    assert {case._replace(distribution="uniform") for case in found if case.distribution == "erk"} == {
        case for case in plain if case.op == "train" and case.model in ("sparse", "narrow")
    }
    assert all(("-erk" in case.id) == (case.distribution == "erk") and "uniform" not in case.id for case in found)
    assert {case.distribution for case in found if case.op == "forward"} == {"-"}


@pytest.mark.parametrize("distributions", [("erk",), ("erk", "uniform")])
def test_a_pattern_of_one_sparsity_is_trained_once_beside_any_distribution(distributions: tuple[str, ...]) -> None:
    asked = DEFAULT._replace(ops=("train",), layers=("two_four", "block16"), sparsities=(0.5,), updates=("static",), seeds=1)
    found = [case for case in grid(asked._replace(distributions=distributions)) if case.model == "sparse"]
    plain = [case for case in grid(asked) if case.layer == "two_four"]
    assert [case for case in found if case.layer == "two_four"] == plain
    assert {case.distribution for case in plain} == {"uniform"}
    assert {case.distribution for case in found if case.layer == "block16"} == set(distributions)


def test_every_data_set_has_its_settings() -> None:
    assert set(grids.EPOCHS_AND_BATCH) == set(grids.FEATURES) == set(DATA)


def test_each_arm_of_a_training_goes_first_as_often_as_the_other() -> None:
    assert all(epochs % 2 == 0 for epochs, _ in grids.EPOCHS_AND_BATCH.values())


@pytest.mark.usefixtures("mnist")
def test_features_are_those_of_the_data() -> None:
    assert {name: DATA[name]().train.inputs.shape[1] for name in DATA} == grids.FEATURES


def test_the_seed_protocol_shares_its_learning_rate_and_search_seeds_are_never_reported() -> None:
    assert not set(grids.SEARCH_SEEDS) & set(range(100))


@pytest.mark.parametrize(
    ("device", "on_gpu", "layer"), [("cpu", True, "tiled"), ("cuda", True, "tiled"), ("cuda", False, "csr")]
)
def test_the_experiment_is_run_by_the_best_layer_of_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, on_gpu: bool, layer: str
) -> None:
    monkeypatch.setattr(LAYERS["tiled"], "devices", ("cpu", "cuda") if on_gpu else ("cpu",))
    found = cases.cases("train", DEFAULT._replace(devices=(device,)))
    assert {case.layer for case in found if case.model == "sparse"} - RIVALS == {layer}
