"""Transformer layers of torch.nn in: those with sparse layers inside no longer read their weights past them."""

from torch import nn

# What each asks before it hands the weights of its layers to one kernel, by which it is kept from that.
SWITCHES: dict[type[nn.Module], str] = {
    nn.TransformerEncoderLayer: "activation_relu_or_gelu",
    nn.TransformerEncoder: "use_nested_tensor",
}


def fit_fast_path(model: nn.Module) -> None:
    """Switch the fast path of transformer layers off where a linear layer inside is not dense, and on again where all are."""
    for module in model.modules():
        for kind, switch in SWITCHES.items():
            if not isinstance(module, kind) or not hasattr(module, switch):
                continue
            kept = f"{switch}_of_dense"
            is_sparse = any(
                not isinstance(layer, nn.Linear)
                for inner in module.modules()
                if isinstance(inner, nn.TransformerEncoderLayer)
                for layer in (inner.linear1, inner.linear2)
            )
            if is_sparse and kept not in module.__dict__:
                setattr(module, kept, getattr(module, switch))
                setattr(module, switch, 0)
            elif not is_sparse and kept in module.__dict__:
                setattr(module, switch, module.__dict__.pop(kept))
