"""A training step in which a tile of the batch at a time goes through all layers, and then every parameter is updated.

One call from Python and one team of threads, which wait for one another twice: for the values in their transposes' order, and
for the gradients, which are added up over the parts of the batch where the optimizer reads them.
"""

from collections.abc import Sequence
from functools import partial

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel
from sparse_models.kernels.cpu._pass import CHUNKS, default, emit_pass
from sparse_models.kernels.cpu._tile import SUMS, emitter_for
from sparse_models.kernels.cpu.chain._both import own_bytes
from sparse_models.kernels.cpu.chain._cut import Cut, Form, arguments_for, heights_of, rows_of
from sparse_models.kernels.cpu.chain._frame import Frame, ready_with, reordered
from sparse_models.kernels.cpu.chain._ready import Ready
from sparse_models.kernels.cpu.chain._update import Parameter
from sparse_models.kernels.cpu.chain.rules import Rule
from sparse_models.kernels.cpu.csr._panels import first_cache, panel_columns
from sparse_models.kernels.link import Link
from sparse_models.kernels.structure import AnyStructure, Structure
from sparse_models.kernels.variant import Variant

SHARES_PER_THREAD = 2  # of each parameter
LEAST = 16  # non-zeros of a row in a panel of a small first cache, below which its sums are more work than its products
WIDE = 64  # bytes of the vectors of which there are 32 registers


def ready(
    links: Sequence[Link],
    parameters: Sequence[Parameter | None],
    rule: Rule,
    batch: int,
    variant: Variant | None = None,
    *,
    both: bool | None = None,
) -> Ready:
    """Return a step on so many samples for a chain of layers, whose parameters are each one's values and bias in turn.

    `both` gradients of a layer of CSR matrices come of one walk where the first cache is smaller than panels and vectors are
    wide, unless said: on a larger one this was not measured, and of narrower ones it needs more than there are registers.
    Panels are narrower and fewer there, too.
    """
    variant, dtype = variant or default_of(links), links[0].values.dtype
    cut, heights = Cut.of(batch, dtype, variant), heights_of(links)
    is_small, is_csr = has_small_cache(variant), isinstance(links[0].rows, Structure)
    both = is_csr and (is_small and variant.vector_bytes == WIDE if both is None else both)
    transposes = {id(link.columns) for link in links} if both else set[int]()
    variant_of = partial(_variant_of, cut.chunks, transposes, first_cache() if is_small else 0)
    transposed = [link.values for link in links] if both else reordered(links)
    rows, beside = (sum(heights), own_bytes(links)) if both else (rows_of(heights), 0)
    own = arguments_for(links, cut, transposed, heights, rows, variant_of, beside)
    function = _step(name_of(dtype), cut.chunks, variant.vector_bytes, own.forms, rule, both=both)
    sizes = variant.threads, SHARES_PER_THREAD * variant.threads
    return ready_with(function, own, links, parameters, rule, sizes)


def default_of(links: Sequence[Link]) -> Variant:
    """Return the variant of a step: where first caches are small, rows of a tile are as many bytes in narrower vectors, too.

    Not of blocks: they keep sums of several rows, for which there are fewer registers where vectors are narrower.
    """
    variant = default(links)
    as_wide = isinstance(links[0].rows, Structure) and has_small_cache(variant)
    return variant._replace(vectors=min(SUMS, CHUNKS * WIDE // variant.vector_bytes) if as_wide else CHUNKS)


def has_small_cache(variant: Variant) -> bool:
    """Tell whether a core's first cache is known, and does not hold a variant's panels."""
    return 0 < first_cache() < variant.panel_bytes


def _variant_of(chunks: int, transposes: set[int], cache_bytes: int, structure: AnyStructure, variant: Variant) -> Variant:
    """Return a structure's variant: a transpose of which both gradients come has no panels, and others have some that fit."""
    if id(structure) in transposes:
        return variant._replace(panel_bytes=0)
    if cache_bytes == 0 or not isinstance(structure, Structure):
        return variant
    sizes, fitting = structure.sizes, variant._replace(panel_bytes=cache_bytes)
    in_panel = panel_columns(sizes, chunks, fitting) * sizes.nnz / max(1, sizes.rows * sizes.columns)
    return fitting if in_panel >= LEAST else variant._replace(panel_bytes=0)


@kernel
def _step(dtype: str, chunks: int, vector_bytes: int, forms: Sequence[Form], rule: Rule, *, both: bool) -> int:
    """Return the address of the kernel of a step for tiles of so many vectors, as `emit_pass` has them."""
    emit = emitter_for(dtype, vector_bytes)
    frame = Frame(emit, forms, rule)
    if not both:
        with emit.tasks(frame.shares) as share:
            frame.reorder(share)
    emit_pass(emit, chunks, forms, frame.orders if both else None)
    with emit.tasks(frame.shares) as share:
        with emit.builder.if_then(emit.builder.icmp_signed("==", share, emit.constant(0))):
            frame.write_loss()
        with emit.loop(emit.constant(0), emit.constant(len(forms))) as parameter:
            updated = frame.updated(parameter.place)
            frame.update(updated, *emit.share(updated.count, share, frame.shares))
    return emit.compiled()
