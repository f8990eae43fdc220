"""k winners take all: of each sample's activations the k largest are kept."""

from torch import Tensor, nn

from sparse_models.errors import InputError


class KWinners(nn.Module):
    """Keeps the `k` largest activations of each sample, along its features, and sets the others to 0.

    It is the activation of k-sparse autoencoders (Makhzani and Frey 2013, arXiv:1312.5663) and, with boosting, of sparse
    representations (Ahmad and Scheinkman 2019, arXiv:1903.11257); there is no boosting here. The gradient passes to the winners
    alone. Of equal activations any are kept, so that there are always `k`; NaN counts as the largest, and so is seen.
    """

    def __init__(self, k: int) -> None:
        """Keep so many; raises InputError for fewer than 1."""
        super().__init__()
        if k < 1:
            raise InputError(f"KWinners: expected at least 1 winner, got {k}; keep one at least")
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., features] with all but the k largest features 0; raises InputError for fewer features than k."""
        if x.dim() == 0 or x.shape[-1] < self.k:
            raise InputError(
                f"KWinners: expected at least {self.k} features, got a shape of {list(x.shape)}; take fewer winners"
            )
        values, places = x.topk(self.k, dim=-1)
        return x.new_zeros(x.shape).scatter(-1, places, values)

    def extra_repr(self) -> str:
        """Return the number of winners, as printed by PyTorch."""
        return f"k={self.k}"
