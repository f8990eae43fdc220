"""What sparsify and densify refuse, each in one sentence, and nothing is changed then."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.models import draw, sparse_mlp
from sparse_models.sparsification import SparseConv2d, densify, sparse_layers, sparsify
from tests.sparse_models.sparsification.test_sparsify import named


def refused() -> dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]]:
    """Nets, what is asked for, and what is said."""

    def tied() -> nn.Module:
        net = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False), "other": nn.Linear(4, 4)})
        net["head"].weight = net["embedding"].weight
        return net

    def hooked() -> nn.Module:
        net = named()
        net["last"].register_forward_hook(lambda *_: None)
        return net

    def hooked_weight() -> nn.Module:
        net = named()
        net.get_parameter("last.weight").register_post_accumulate_grad_hook(lambda _: None)
        return net

    def encoder() -> nn.Module:
        return nn.TransformerEncoderLayer(8, 2, 16)

    last = {"masks": {"last": torch.ones(3, 8)}}
    return {
        "a tied weight": (
            tied,
            {"names": ["head", "other"]},
            "head: expected a weight of its own, got one tied to embedding.weight",
        ),
        "a hook": (hooked, {"masks": last["masks"]}, "last: expected a module without hooks"),
        "a hook on the weight": (hooked_weight, {"names": "last"}, "last: expected a weight without hooks of its own"),
        "no numbers": (lambda: named().to("meta"), {}, "expected layers .* got none; first, last.*: .* on the meta device"),
        "attention": (
            encoder,
            {"names": "self_attn.out_proj"},
            "self_attn.out_proj: .* one of nn.MultiheadAttention, which reads",
        ),
        "a name": (named, {"names": "frist"}, "expected a known dense layer .* got 'frist'; did you mean first?"),
        "a mask's name": (named, {"masks": {"lsat": torch.ones(3, 8)}}, "got 'lsat'; did you mean last?"),
        "a mask's shape": (named, {"masks": {"last": torch.ones(8, 3)}}, r"last: expected a mask of shape \[3, 8\]"),
        "a layer": (named, {"layer": "tilde"}, "expected a known layer .*got 'tilde'; did you mean tiled"),
        "a sparsity": (named, {"sparsity": 80}, "80 % sparse is 0.8"),
        "a pattern's sparsity": (named, {"layer": "two_four", "sparsity": 0.9}, "expected sparsity 0.5, the only one of"),
        "neurons": (named, {"layer": "compact"}, "expected a pattern that each layer can keep by itself, got 'neurons'"),
        "a criterion": (named, {"by": "size"}, "expected a known criterion"),
        "a distribution": (named, {"distribution": "erl"}, "expected a known distribution .* did you mean erk?"),
        "nothing": (named, {"sparsity": None}, "expected a sparsity, masks, or layers that torch.nn.utils.prune has pruned"),
        "a dtype": (lambda: named().bfloat16(), {"layer": "csr"}, "first: Csr.*: expected .* got bfloat16 on cpu"),
        "a layer itself": (lambda: nn.Linear(3, 2), {}, "expected a module that holds layers, got nn.Linear itself"),
        "too small": (named, {"least": 100}, "expected layers to be replaced, got none; look at names"),
    }


@pytest.mark.parametrize("kind", refused())
def test_what_is_refused_changes_nothing(kind: str) -> None:
    build, asked, said = refused()[kind]
    net = build()
    optimizer = torch.optim.Adam(net.parameters())
    before, modules = list(net.parameters()), list(net.modules())
    with pytest.raises(InputError, match=said):
        sparsify(net, **{"sparsity": 0.5, "optimizer": optimizer, **asked})
    assert all(one is other for one, other in zip(net.modules(), modules, strict=True))
    assert all(one is other for one, other in zip(optimizer.param_groups[0]["params"], before, strict=True))


def test_optimizer_state_that_goes_by_no_weight_is_refused() -> None:
    net = named()
    optimizer = torch.optim.Adafactor(net.parameters())
    net["last"](torch.randn(2, 8)).sum().backward()
    optimizer.step()
    with pytest.raises(InputError, match="last: expected optimizer state by weight, got 'row_var' of Adafactor"):
        sparsify(net, sparsity=0.5, optimizer=optimizer)
    assert not sparse_layers(net)


def test_an_mlp_of_the_suite_stays_one_of_sparse_layers() -> None:
    model = sparse_mlp(draw((4, 8, 2)), "tiled", 0.5)
    with pytest.raises(InputError, match="got an MLP of sparse layers; build it by dense_mlp"):
        densify(model)
    assert all(isinstance(layer, SparseLinear) for layer in model)
    with pytest.raises(InputError, match="call to_linear or to_conv"):
        densify(SparseConv2d.from_conv(LAYERS["tiled"], nn.Conv2d(2, 2, 1)))
