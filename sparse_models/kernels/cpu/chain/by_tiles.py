"""A training step in which a tile of the batch at a time goes through all layers, and then every parameter is updated.

One call from Python and one team of threads, which wait for one another twice: for the values in their transposes' order, and
for the gradients, which are added up over the parts of the batch where the optimizer reads them.
"""

from collections.abc import Sequence

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel
from sparse_models.kernels.cpu._pass import default, emit_pass
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.chain._cut import Cut, Form, arguments_for, heights_of, rows_of
from sparse_models.kernels.cpu.chain._frame import Frame, ready_with, reordered
from sparse_models.kernels.cpu.chain._ready import Ready
from sparse_models.kernels.cpu.chain._update import Parameter
from sparse_models.kernels.cpu.chain.rules import Rule
from sparse_models.kernels.link import Link
from sparse_models.kernels.variant import Variant

SHARES_PER_THREAD = 2  # of each parameter
PHASES = 3


def ready(
    links: Sequence[Link], parameters: Sequence[Parameter | None], rule: Rule, batch: int, variant: Variant | None = None
) -> Ready:
    """Return a step on so many samples for a chain of layers, whose parameters are each one's values and bias in turn."""
    variant, dtype = variant or default(links), links[0].values.dtype
    cut, heights = Cut.of(batch, dtype, variant), heights_of(links)
    own = arguments_for(links, cut, reordered(links), heights, rows_of(heights))
    function = _step(name_of(dtype), cut.chunks, variant.vector_bytes, own.forms, rule)
    return ready_with(function, own, links, parameters, rule, (variant.threads, SHARES_PER_THREAD * variant.threads, PHASES))


@kernel
def _step(dtype: str, chunks: int, vector_bytes: int, forms: Sequence[Form], rule: Rule) -> int:
    """Return the address of the kernel of a step for tiles of so many vectors, as `emit_pass` has them."""
    emit = emitter_for(dtype, vector_bytes)
    frame = Frame(emit, forms, rule)
    with frame.phases.tasks(frame.shares) as share:
        frame.reorder(share)
    emit_pass(emit, chunks, forms, frame.phases.tasks)
    with frame.phases.tasks(frame.shares) as share:
        with emit.builder.if_then(emit.builder.icmp_signed("==", share, emit.constant(0))):
            frame.write_loss()
        with emit.loop(emit.constant(0), emit.constant(len(forms))) as parameter:
            updated = frame.updated(parameter.place)
            frame.update(updated, *emit.share(updated.count, share, frame.shares))
    return emit.compiled()
