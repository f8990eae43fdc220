"""How a variant is chosen: with a drawn clock, so that no test depends on what the machine does meanwhile."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels import candidates, choice, kept_choices, race
from sparse_models.kernels.chain import gradients
from sparse_models.kernels.choice import Work, variant_for
from sparse_models.kernels.contention import Usage
from sparse_models.kernels.cpu import _team
from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu.tiled import define_product, product
from sparse_models.kernels.race import CLEARLY, ROUNDS, TRIES, fastest
from sparse_models.kernels.variant import Variant
from sparse_models.layers.tiled import Tiled
from tests.helpers.drawn_clock import Clock
from tests.helpers.kernel_checks import close
from tests.sparse_models.kernels.test_chain import links
from tests.sparse_models.kernels.test_kernels import problem
from tests.strategies import normal

DEFAULT, OTHER, THIRD, FOURTH = (Variant(vectors, 4, 16, 1) for vectors in (8, 4, 2, 1))
ASKED = ("product", (64, 32), 128, 200, torch.float32)
NAME = str(Work(*ASKED, 2))


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Have PyTorch take two threads, of which a class's name tells, and among which there is something to choose."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[dict[Variant, list[float]]], Clock]]:
    """Measure by a Clock, with a cache of its own; as in a fresh process each time that it is called."""
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    monkeypatch.delenv("SPARSE_MODELS_VARIANT", raising=False)

    def started(seconds: dict[Variant, list[float]]) -> Clock:
        clock = Clock(seconds)
        monkeypatch.setattr(race, "time", SimpleNamespace(perf_counter=lambda: clock.now))
        monkeypatch.setattr(race, "Usage", SimpleNamespace(now=lambda: clock))
        choice.forget()
        return clock

    yield started
    choice.forget()


Start = Callable[[dict[Variant, list[float]]], Clock]


def chosen(clock: Clock, variants: Sequence[Variant] = (DEFAULT, OTHER, THIRD)) -> Variant:
    return variant_for(ASKED, lambda: variants, clock.call)


def test_the_fastest_is_chosen_measured_once_and_kept(start: Start) -> None:
    seconds = {DEFAULT: [1.0], OTHER: [0.9], THIRD: [0.8]}
    clock = start(seconds)
    assert chosen(clock) == THIRD
    calls = clock.calls
    assert chosen(clock) == THIRD
    assert clock.calls == calls
    again = start(seconds)
    assert chosen(again) == THIRD
    assert again.calls == 0
    kept = choice.known()[NAME]
    assert kept.gain == pytest.approx(1 / 0.8)
    assert kept.tried == pytest.approx({DEFAULT: 1.0, OTHER: 0.9, THIRD: 0.8})


@given(st.lists(st.lists(st.floats(0.5, 2.0), min_size=ROUNDS, max_size=ROUNDS), min_size=1, max_size=5))
def test_the_default_stays_unless_another_is_clearly_faster_in_every_round(times: list[list[float]]) -> None:
    own = {Variant(number, 4, 16, 1): seconds for number, seconds in enumerate(times, 1)}
    default, *others = own
    found = fastest(own)
    clear = [one for one in others if all(its / mine > CLEARLY for mine, its in zip(own[one], own[default], strict=True))]
    assert found in (clear or [default])
    assert all(race.relative(own, found) <= race.relative(own, one) for one in clear)


def test_what_is_faster_once_alone_is_not_chosen(start: Start) -> None:
    warm = [1.0, 1.0, 1.0]  # the calls before the first round
    assert chosen(start({DEFAULT: [1.0], OTHER: [*warm, 0.5, 1.0]}), [DEFAULT, OTHER]) == DEFAULT


def test_what_is_hardly_faster_is_not_chosen(start: Start) -> None:
    assert chosen(start({DEFAULT: [1.0], OTHER: [0.98]}), [DEFAULT, OTHER]) == DEFAULT


def test_what_is_far_behind_is_looked_at_once(start: Start) -> None:
    clock = start({DEFAULT: [1.0], OTHER: [0.9], THIRD: [0.8], FOURTH: [100.0]})
    assert chosen(clock, [DEFAULT, OTHER, THIRD, FOURTH]) == THIRD
    assert choice.known()[NAME].tried[FOURTH] == pytest.approx(100.0)
    assert clock.now < 300.0


@pytest.mark.parametrize("wrong", [1.1, math.nan, math.inf])
def test_what_gives_something_else_is_not_chosen(start: Start, wrong: float) -> None:
    clock = start({DEFAULT: [1.0], OTHER: [0.5]})
    clock.results[OTHER] = wrong
    assert chosen(clock, [DEFAULT, OTHER]) == DEFAULT


def test_disturbed_rounds_do_not_count_and_where_there_are_too_many_nothing_is_kept(start: Start, tmp_path: Path) -> None:
    clock = start({DEFAULT: [1.0], OTHER: [0.5]})
    clock.disturbed = TRIES
    assert chosen(clock, [DEFAULT, OTHER]) == OTHER
    [file] = tmp_path.iterdir()
    file.unlink()
    clock = start(clock.seconds)
    clock.disturbed = TRIES + 1
    assert [chosen(clock, [DEFAULT, OTHER]) for _ in range(2)] == [DEFAULT] * 2
    assert choice.disturbed == {NAME}
    assert not [*tmp_path.iterdir()]
    assert chosen(start(clock.seconds), [DEFAULT, OTHER]) == OTHER


def test_on_a_busy_machine_measuring_is_given_up(start: Start) -> None:
    clock = start({DEFAULT: [1.0], OTHER: [0.5]})
    clock.disturbed = 10**6
    asked, calls = [(ASKED[0], (size, 32), *ASKED[2:]) for size in (8, 16, 32, 64, 128)], list[int]()
    for one in asked:
        before = clock.calls
        assert variant_for(one, lambda: [DEFAULT, OTHER], clock.call) == DEFAULT
        calls.append(clock.calls - before)
    assert [bool(count) for count in calls] == [True, True, True, False, False]
    clock.disturbed = 0
    choice.retry()
    assert {variant_for(one, lambda: [DEFAULT, OTHER], clock.call) for one in asked} == {OTHER}


def test_a_file_that_is_damaged_or_foreign_is_measured_anew(start: Start, tmp_path: Path) -> None:
    seconds = {DEFAULT: [1.0], OTHER: [0.5]}
    assert chosen(start(seconds), [DEFAULT, OTHER]) == OTHER
    [file] = tmp_path.iterdir()
    whole = json.loads(file.read_bytes())
    [kept] = whole["choices"].values()
    foreign = {**whole, "told": {**whole["told"], "machine": ["another"]}}
    wrong = [{**kept, "variant": [4, 4, 16]}, {**kept, "variant": [3, 4, 16, 1]}, {**kept, "tried": None}, 7, None]
    texts = [b"", file.read_bytes()[:-9], b"[]", b"\xff", json.dumps(foreign).encode()]
    for text in [*texts, *(json.dumps({**whole, "choices": {NAME: one}}).encode() for one in wrong)]:
        file.write_bytes(text)
        clock = start(seconds)
        assert chosen(clock, [DEFAULT, OTHER]) == OTHER, text
        assert clock.calls, text
        assert json.loads(file.read_bytes()).keys() == whole.keys(), text


def test_choices_of_other_classes_stay_in_the_file(start: Start) -> None:
    seconds = {DEFAULT: [1.0], OTHER: [0.5]}
    clock = start(seconds)
    assert chosen(clock, [DEFAULT, OTHER]) == OTHER
    other = start(seconds)
    choice.anew()
    variant_for(("sampled", *ASKED[1:]), lambda: [DEFAULT, OTHER], other.call)
    assert len(kept_choices.read()) == 2


def test_a_cache_that_cannot_be_written_is_done_without(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSE_MODELS_CACHE", "/proc/nowhere")
    assert chosen(start({DEFAULT: [1.0], OTHER: [0.5]}), [DEFAULT, OTHER]) == OTHER


def test_what_is_asked_for_is_taken_and_nothing_measured(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "default": DEFAULT,
        "vectors=3": DEFAULT._replace(vectors=3),
        "vectors=0,together=8": DEFAULT._replace(together=8),
    }
    for text, variant in expected.items():
        monkeypatch.setenv("SPARSE_MODELS_VARIANT", text)
        clock = start({DEFAULT: [1.0], OTHER: [0.5]})
        assert chosen(clock, [DEFAULT, OTHER]) == variant
        assert clock.calls == 0
    start({})
    assert variant_for(ASKED, lambda: [DEFAULT, DEFAULT._replace(vectors=0)], None).vectors == 0
    monkeypatch.setenv("SPARSE_MODELS_VARIANT", "threads=1000,vector_bytes=1024")
    start({})
    most = variant_for(ASKED, lambda: [DEFAULT], None)
    assert (most.threads, most.vector_bytes) == (torch.get_num_threads(), vector_bytes())


@pytest.mark.parametrize("text", ["fastest", "vectors", "vectors=x", "together=3", "tiles=4", "vectors=4,,together=8"])
def test_what_is_no_variant_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SPARSE_MODELS_VARIANT", text)
    with pytest.raises(InputError, match=r"^SPARSE_MODELS_VARIANT: expected default, measured, or numbers as in vectors=4"):
        chosen(start({}))


def test_where_choices_are_held_they_alone_hold(start: Start) -> None:
    clock = start({DEFAULT: [1.0], OTHER: [0.5]})
    chosen(clock, [DEFAULT, OTHER])
    held = json.loads(json.dumps(choice.plain(choice.known())))
    clock = start({DEFAULT: [0.5], OTHER: [1.0]})
    choice.hold(held)
    assert chosen(clock, [DEFAULT, OTHER]) == OTHER
    choice.hold({})
    assert chosen(clock, [DEFAULT, OTHER]) == DEFAULT
    assert clock.calls == 0


def test_parts_of_the_default_are_measured_before_it_and_none_within(start: Start) -> None:
    clock = start({DEFAULT: [1.0], OTHER: [0.5], THIRD: [0.4]})
    parts: list[Variant] = []

    def outer(variant: Variant) -> Tensor:
        kernel = "part of the default" if variant == DEFAULT else "part of another"
        parts.append(variant_for((kernel, *ASKED[1:]), lambda: [DEFAULT, OTHER], clock.call))
        return clock.call(variant)

    assert variant_for(ASKED, lambda: [DEFAULT, THIRD], outer) == THIRD
    assert set(parts) == {DEFAULT, OTHER}
    assert {name.partition(" 64")[0] for name in choice.known()} == {"product", "part of the default"}
    outer(THIRD)
    assert parts[-1] == OTHER


def test_products_and_chains_are_chosen_for_and_still_what_their_definitions_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kept_choices, "cache_folder", lambda: tmp_path)
    monkeypatch.setenv("SPARSE_MODELS_VARIANT", "measured")
    monkeypatch.setattr(Usage, "was_disturbed", lambda *_: False)
    monkeypatch.setattr(_team, "WORTH_A_TEAM", 0)  # or few samples have one thread, and nothing to choose among
    monkeypatch.setattr(candidates, "different", lambda variants, *_: variants[:2])  # each has to be compiled
    choice.forget()
    structure, values, x, bias, _ = problem(0, 23, 41, 70, 0.3, torch.float32)
    first, again = (product(structure, values, x, bias) for _ in range(2))
    close(first, define_product(structure, values, x, bias))
    assert torch.equal(first, again)
    layer = Tiled(normal(0, 20, 300, dtype=torch.float32), torch.rand(20, 300) < 0.1).eval()
    with torch.no_grad():
        layer(normal(1, 1, 300, dtype=torch.float32))
    gradients(links(0, (4, 5, 3), 0.5, torch.float32, with_bias=True), torch.randn(20, 4), torch.arange(20) % 3)
    assert {name.split()[0] for name in kept_choices.read()} == {"product", "sample", "chain"}
    choice.forget()
