"""Names are looked up in one place, and one that is not there is told with what is."""

import pytest

from sparse_models import layers, registry, updates
from sparse_models.errors import InputError
from sparse_models.table import Table


def test_a_name_is_entered_once_and_an_unknown_one_is_told_with_the_known() -> None:
    table = Table[int]("number")
    table.enter("two", 2)
    table.enter("one", 1)
    assert table.find("one") == 1
    with pytest.raises(InputError, match=r"expected a known number \(one, two\), got 'three'; nothing like it is here"):
        table.find("three")
    with pytest.raises(InputError, match="expected a new name, got 'one', which 1 has already"):
        table.enter("one", 3)
    assert table == {"one": 1, "two": 2}


def test_what_is_absent_is_told_with_what_to_do() -> None:
    table = Table[int]("number")
    table.absent["three"] = "install three"
    with pytest.raises(InputError, match=r"got 'three'; install three"):
        table.find("three")


@pytest.mark.parametrize("name", sorted({*registry.__all__} - {"ABSENT"}))
def test_the_registry_leads_to_where_each_name_lives(name: str) -> None:
    home = updates if "UPDATE" in name.upper() else layers
    assert getattr(registry, name) is getattr(home, name)


def test_what_is_absent_of_either_table_is_in_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layers.LAYERS.absent, "a", "install a")
    monkeypatch.setitem(updates.UPDATES.absent, "b", "install b")
    assert registry.ABSENT.items() >= {"a": "install a", "b": "install b"}.items()


def test_the_registry_has_no_other_name() -> None:
    with pytest.raises(AttributeError, match=r"'sparse_models.registry' has no attribute 'csr'"):
        _ = registry.csr
