from hypothesis import given
from hypothesis import strategies as st

from bench.statistics.samples import Sample

dicts = st.dictionaries(st.integers(0, 50), st.floats(0.1, 10), max_size=14)


@given(dicts, dicts)
def test_a_sample_is_the_mapping_of_its_numbers_to_its_figures(one: dict[int, float], other: dict[int, float]) -> None:
    samples = [Sample(list(each), list(each.values())) for each in (one, other)]
    assert dict(samples[0]) == one
    assert list(samples[0]) == list(one)
    assert len(samples[0]) == len(one)
    assert (samples[0] == samples[1]) == (one == other)
    assert all(number in samples[0] for number in one)
    assert [samples[0].get(number) for number in other] == [one.get(number) for number in other]


def test_a_thousand_samples_of_the_same_processes_share_their_numbers() -> None:
    one, other = (Sample([3, 1, 2], [value] * 3) for value in (1.0, 2.0))
    assert one._places is other._places
