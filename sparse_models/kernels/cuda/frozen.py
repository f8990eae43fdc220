"""A layer's weights as the kernel for few samples reads them: kept beside the layer, made anew where they changed."""

from typing import Any

import torch
from torch import Tensor

from sparse_models.kernels.asynchronous import is_asynchronous, is_captured
from sparse_models.kernels.cuda import _card, small_batch
from sparse_models.kernels.cuda.small_batch import Form, Packed
from sparse_models.kernels.source import Source
from sparse_models.kernels.structure import Structure


class Frozen:
    """One packed copy of the weights for each form in which the kernel wants them, made by the first batch that needs it."""

    def __init__(self) -> None:
        """Begin with none."""
        self.held: dict[Form, tuple[Packed, Source]] = {}

    def outdate(self) -> None:
        """Have all copies made anew from the next weights: optimizers of one kernel change weights without counting it.

        They keep their memory, which a captured graph may read.
        """
        self.held = {form: (packed, source.outdated()) for form, (packed, source) in self.held.items()}

    def product(self, structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None) -> Tensor | None:
        """Return x [batch, in] times the matrix that holds `values` [nnz] transposed, plus bias [out]: [batch, out].

        None says that there is no copy, and that a CUDA graph is being captured, which cannot hold the making of one.
        """
        card, x = _card.card_of(x.device), x.contiguous()
        form = small_batch.form_for(structure.columns, values.dtype, len(x), card)
        values = values.detach()
        now = Source.of(structure.indices, values)
        packed, source = self.held.get(form, (None, None))
        plan = None
        if packed is None or source is None or not source.has_values_of(now):
            captured = is_captured(values)
            with torch.inference_mode(mode=False), torch.no_grad():  # whose tensors could not be refilled out of it
                if packed is not None and source is not None and source.has_structure_of(now):
                    small_batch.refill(packed, values)
                elif captured:
                    return None
                else:
                    packed = small_batch.pack(structure, values, form)
            self.held = {other: one for other, one in self.held.items() if one[1].has_structure_of(now)}
            self.held[form] = packed, now.outdated() if captured else now  # what a graph holds is done by its replays alone
            # An overlapped kernel reads weights before the one that wrote them is known to have ended; so may another stream.
            if is_asynchronous(values) and not captured:
                torch.cuda.current_stream(values.device).synchronize()
            plan = small_batch.plan_for(packed, x, bias)._replace(overlapped=False)
        return small_batch.product(packed, x, bias, plan)

    def copied(self, before: Source, now: Source) -> "Frozen":
        """Return copies for a copy of the layer, of whose weights `now` says what `before` says of this one's."""
        other = Frozen()
        for form, (packed, source) in self.held.items():
            if source.has_values_of(before):
                other.held[form] = _clone(packed), now
        return other

    @property
    def bytes_read(self) -> int | None:
        """The bytes of weights and structure that a product reads of the last copy made; None where there is none."""
        return next(reversed(self.held.values()))[0].bytes_read if self.held else None


def _clone(packed: Packed) -> Packed:
    parts: list[Any] = [part.clone() if isinstance(part, Tensor) else part for part in packed]
    return Packed(*parts)
