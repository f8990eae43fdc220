"""The name of a machine: the same for what times alike, another for what may not, and harmless whatever the facts are."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.machine.fingerprint import HARDWARE, SOFTWARE, fingerprint, hardware
from bench.runs.reading import parse
from sparse_models.errors import InputError
from tests.helpers.damaged import is_sentence
from tests.helpers.saved import DELETE, facts, places, put, saved, written

NAMES = (fingerprint, hardware)
GPU = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 2**36, "multiprocessors": 132, "driver": "570.1", "sm_mhz": 345}
# What a processor or a GPU is called, or should not be.
odd = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["", ".", "..", "-rf", "../x", "*", "\0"])
)
anything = st.recursive(
    odd, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5
)


def test_the_name_tells_processor_cores_pytorch_and_python() -> None:
    assert re.fullmatch(r"znver3-2cores-[0-9a-f]{6}", hardware(facts()))
    assert re.fullmatch(r"znver3-2cores-torch2\.13\.0-python3\.11-[0-9a-f]{6}", fingerprint(facts()))
    assert re.fullmatch(r"znver3-2cores-NVIDIAH10080GBHBM3-[0-9a-f]{6}", hardware(facts(gpu=GPU)))
    assert hardware(facts(cpu__name=None)).startswith("AMDEPYC-2cores-")
    assert hardware(facts(cpu__name=None, cpu__model=None)).startswith("x8664-2cores-")


def test_the_same_facts_have_the_same_name_in_any_order_and_after_being_saved() -> None:
    def backwards(value: Any) -> Any:
        return {name: backwards(value[name]) for name in reversed(value)} if isinstance(value, dict) else value

    for name in NAMES:
        for of in (facts(), facts(gpu=GPU)):
            assert name(of) == name(backwards(of)) == name(json.loads(json.dumps(of)))


@pytest.mark.parametrize(
    "changed",
    [
        {"cpu__load_average": [9.0, 9.0, 9.0]}, {"cpu__governor": "powersave"}, {"memory_bytes": 1}, {"torch__threads": 1},
        {"bounds": {}}, {"run": {"after": {}}}, {"gpu__sm_mhz": 1980}, {"gpu__memory_mhz": 2619}, {"os__release": "6.2"},
        {"environment__OMP_NUM_THREADS": "1"}, {"versions__numpy": "2.5"}, {"versions__python": "3.11.8"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
def test_what_changes_from_run_to_run_does_not_matter(
    name: Callable[[Mapping[str, Any]], str], changed: dict[str, Any]
) -> None:
    assert name(facts(gpu=GPU, **changed)) == name(facts(gpu=GPU))


@pytest.mark.parametrize("fact", [*HARDWARE, *SOFTWARE, "versions.python"])
@pytest.mark.parametrize("value", ["other", 77, {"L3": None}], ids=str)
def test_any_fact_that_decides_a_timing_changes_the_name(fact: str, value: Any) -> None:
    # A dot is part of no name here, and each fact is two names deep.
    before, after = facts(gpu=GPU), facts(gpu=GPU, **{fact.replace(".", "__"): value})
    assert fingerprint(after) != fingerprint(before)
    assert (hardware(after) != hardware(before)) == (fact in HARDWARE)
    assert fingerprint(facts(gpu=GPU, **{fact.replace(".", "__"): None})) != fingerprint(after)


def test_the_readable_part_is_not_all_that_tells_machines_apart() -> None:
    one, other = (hardware(facts(cpu__name=name)) for name in ("zn ver", "znver"))
    assert one.rpartition("-")[0] == other.rpartition("-")[0]
    assert one != other


PLACES = [tuple(place.split(".")) for place in (*HARDWARE, *SOFTWARE, "versions.python", "environment.other")]


@given(st.dictionaries(st.sampled_from(PLACES), odd, max_size=6))
def test_whatever_the_facts_are_the_name_is_one_that_files_and_globs_take(changed: dict[tuple[str, str], Any]) -> None:
    of = facts(gpu=GPU, **{"__".join(place): value for place, value in changed.items()})
    for name in NAMES:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,240}", name(of))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "nothing", [{}, {"cpu": None}, {"cpu": [], "gpu": 1, "torch": "x"}, {"cpu": {"name": "..", "model": "-"}}]
)
def test_where_nothing_is_known_there_is_a_name_all_the_same(name: Callable[[Any], str], nothing: dict[str, Any]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]+", name(nothing))


@given(st.sampled_from([place for place in places(facts()) if place]), anything | st.just(DELETE))
def test_hostile_facts_in_a_saved_run_are_named_or_refused(place: tuple[Any, ...], value: Any) -> None:
    whole = written(saved(machine=put(facts(), place, value)))
    try:
        run = parse("run", whole)
    except InputError as error:
        why = str(error)
    else:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,240}", run.machine)
        why = run.hardware
    assert is_sentence(why)


@pytest.mark.parametrize("value", [10**400, [[[{}]]], {"a": 1, "": 2}, "x" * 10**6, "\0" * 10**6], ids=range(5))
def test_large_facts_make_no_large_name(value: Any) -> None:
    run = parse("run", written(saved(machine=facts(cpu__name=value, cpu__usable_cores=value, torch__version=value))))
    assert len(run.machine) < 250
