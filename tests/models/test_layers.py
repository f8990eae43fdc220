"""Which linear layers a network calls, in which shapes, and which it never calls."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.models import selected
from bench.models.layers import inspect, told
from bench.models.loading import Example
from sparse_models.errors import InputError
from tests.sparse_models.sparsification.test_sparsify import WIDTH, nets, tied_in
from tests.strategies import normal


def batches() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 3), min_size=1, max_size=3)


@given(nets(), batches())
def test_every_linear_layer_is_found_once_with_the_rows_of_each_call(net: nn.Module, leading: list[int]) -> None:
    linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
    places = [name for name, module in net.named_modules(remove_duplicate=False) if isinstance(module, nn.Linear)]
    example = Example(net, (normal(0, *leading, WIDTH),))
    if not linears:
        with pytest.raises(InputError, match=r"a module that calls an nn.Linear or an nn.Conv2d, got one without; "):
            inspect("a:net", example)
        return
    found = inspect("a:net", example)
    assert {net.get_submodule(layer.name) for layer in found.layers} == set(linears)
    rows = math.prod(leading)
    assert all(set(layer.rows) == {rows} and layer.shapes == [f"{WIDTH}x{WIDTH}b{rows}"] for layer in found.layers)
    assert sum(len(layer.rows) for layer in found.layers) == len(places)  # each place is called once
    assert sorted(name for layer in found.layers for name in layer.names) == sorted(places)
    assert {net.get_submodule(layer.name) for layer in found.layers if not layer.can_be_sparse} == tied_in(net)
    assert bool(found.left_dense) == bool(tied_in(net))
    assert found.can_learn == any(one.requires_grad for one in net.parameters())
    assert found.shape == f"{math.prod(leading[1:]) * WIDTH}x{math.prod(leading[1:]) * WIDTH}b{leading[0]}"
    assert found.never_called == []
    assert not any(module._forward_hooks for module in net.modules())


class Odd(nn.Module):
    """Calls one layer with two numbers of rows, reads another's weight, and puts out whatever it is told to."""

    def __init__(self, wrap: Any = lambda y: y) -> None:
        super().__init__()
        self.often, self.read, self.wrap = nn.Linear(3, 3), nn.Linear(3, 5), wrap

    def forward(self, x: Tensor, more: Tensor) -> Any:
        return self.wrap(nn.functional.linear(self.often(self.often(x)) + self.often(more), self.read.weight))


def test_a_layer_of_two_shapes_has_both_and_one_that_is_read_is_left_out() -> None:
    found = inspect("a:net", Example(Odd(), (torch.ones(4, 2, 3), torch.ones(2, 3))))
    [layer] = found.layers
    assert (layer.names, layer.rows, layer.shapes) == (("often",), (8, 8, 2), ["3x3b8", "3x3b2"])
    assert layer.has_input_gradient
    assert found.never_called == ["read"]
    assert found.by_shape == {"3x3b8": [layer], "3x3b2": [layer]}
    lines = told("a:net", found)
    assert lines[1] == "  3x3b8: often (3 calls)"
    assert any("never calls them: read" in line for line in lines)


@pytest.mark.parametrize("wrap", [lambda y: (y, 3), lambda y: [y]])
def test_the_first_output_counts(wrap: Any) -> None:
    assert inspect("a:net", Example(Odd(wrap), (torch.ones(4, 3), torch.ones(3)))).shape == "3x5b4"


@pytest.mark.parametrize("wrap", [lambda y: {"y": y}, lambda y: ("y", y), lambda _: None, lambda _: ()])
def test_what_puts_out_no_tensor_is_refused(wrap: Any) -> None:
    with pytest.raises(InputError, match=r"expected a module whose output is a tensor, .* got a "):
        inspect("a:net", Example(Odd(wrap), (torch.ones(4, 3), torch.ones(3))))


def test_an_output_of_whole_numbers_has_nothing_to_learn_from() -> None:
    assert not inspect("a:net", Example(Odd(lambda y: y.argmax(-1)), (torch.ones(4, 3), torch.ones(3)))).can_learn


def test_a_layer_alone_is_refused() -> None:
    with pytest.raises(InputError, match=r"got nn.Linear itself; put it in a Sequential"):
        inspect("a:net", Example(nn.Linear(2, 2), (torch.ones(1, 2),)))


def test_a_forward_pass_that_raises_is_told_with_the_users_traceback() -> None:
    def wrong(_: Tensor) -> Tensor:
        raise ZeroDivisionError("in the user's code")

    with pytest.raises(InputError, match="forward pass raised ZeroDivisionError:\n") as raised:
        inspect("a:net", Example(Odd(wrong), (torch.ones(4, 3), torch.ones(3))))
    assert "in wrong" in str(raised.value)
    assert "_call_impl" not in str(raised.value)
    assert "in inspect" not in str(raised.value)


def test_a_transformer_calls_its_layers_though_inference_has_a_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    net = nn.TransformerEncoder(layer, 2).requires_grad_(requires_grad=False)  # so that grad mode alone keeps it from nothing
    found = inspect("a:net", Example(net, (torch.ones(3, 5, 8),)))
    assert [one.name for one in found.layers] == [f"layers.{at}.linear{number}" for at in (0, 1) for number in (1, 2)]
    assert list(found.by_shape) == ["8x12b15", "12x8b15"]
    assert found.never_called == ["layers.0.self_attn.out_proj", "layers.1.self_attn.out_proj"]


class Mixed(nn.Module):
    """Layers of most kinds there are."""

    def __init__(self) -> None:
        super().__init__()
        self.once = nn.Conv2d(2, 3, (3, 2), stride=2, padding=1)
        self.grouped = nn.Conv2d(3, 3, 1, groups=3)
        self.long = nn.Conv1d(3, 4, 1)
        self.last, self.unused = nn.Linear(4, 2), nn.LSTM(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.long(self.grouped(self.once(x)).flatten(2)).mean(2))  # type: ignore[no-any-return]


@given(st.integers(1, 3), st.integers(2, 6), st.integers(2, 6))
def test_a_convolution_is_a_layer_of_as_many_rows_as_its_output_has_places(batch: int, height: int, width: int) -> None:
    net, x = Mixed(), torch.ones(batch, 2, height, width)
    found = inspect("a:net", Example(net, (x,)))
    layer, _ = found.exchangeable
    assert (layer.name, layer.inputs, layer.outputs, layer.kernel) == ("once", 2 * 3 * 2, 3, (3, 2))
    assert layer.rows == (net.once(x)[:, 0].numel(),)
    assert [one.name for one in found.layers] == [one.name for one in found.sparse] == ["last"]


def test_why_a_layer_stays_dense_is_a_sentence_each() -> None:
    found = inspect("a:net", Example(Mixed(), (torch.ones(1, 2, 4, 4),)))
    grouped, long = found.left_dense
    assert grouped.startswith("grouped: expected a convolution of one group")
    assert long == "long: expected nn.Linear or nn.Conv2d, got nn.Conv1d, of which there is no sparse form"
    assert any("as convolutions are timed by `python -m bench advise` alone: once" in line for line in told("a:net", found))


def test_convolutions_alone_are_for_advise(monkeypatch: pytest.MonkeyPatch) -> None:
    example = Example(nn.Sequential(nn.Conv2d(1, 2, 1)), (torch.ones(1, 1, 2, 2),))
    monkeypatch.setattr(selected, "inspected", lambda reference: inspect(reference, example))
    with pytest.raises(InputError, match="got convolutions alone; python -m bench advise times those"):
        selected.own_model("a:net")


class Twice(nn.Linear):
    """Puts out two tensors."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class TwiceConv2d(nn.Conv2d):
    """The same, of a convolution."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class WSConv1d(nn.Conv1d):
    """One of the user's own."""


class Tuples(nn.Module):
    """Calls layers that put out tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv, self.own, self.last = Twice(4, 5), TwiceConv2d(2, 3, 1), WSConv1d(5, 5, 1), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.linear(self.conv(x)[0].mean(1))
        return self.last(self.own(hidden.transpose(1, 2)).mean(2))  # type: ignore[no-any-return]


def test_layers_of_the_users_own_are_told_by_their_names_whatever_they_put_out() -> None:
    found = inspect("a:net", Example(Tuples(), (torch.ones(6, 2, 3, 4),)))
    assert [(one.name, one.rows) for one in found.layers] == [("linear", (18,)), ("last", (6,))]
    assert [one.name for one in found.exchangeable] == ["last"]
    assert any(one.startswith("own: expected nn.Linear or nn.Conv2d, got WSConv1d, of which") for one in found.left_dense)


class Recurrent(nn.LSTM):
    """A module whose root is itself a layer without a sparse form."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        return self.last(super().forward(x)[0])


def test_a_root_that_stays_dense_is_told_by_a_name() -> None:
    [told_so] = inspect("a:net", Example(Recurrent(), (torch.ones(3, 2, 4),))).left_dense
    assert told_so.startswith("the module itself: expected nn.Linear or nn.Conv2d, got Recurrent, of which")
