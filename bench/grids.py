"""What is measured unless something else is asked for: operations, shapes, sparsities, regimes, trainings. Names and numbers.

The default grid is what people ask: one sample, one layer's forward and step, a whole training step, the seed's experiment and
what it costs in accuracy. Each of its cases is there for a sentence of the answer. All the rest is the full grid.
"""

# What a step consists of, each timed by itself; the update of the mask, which comes once in many steps, is an operation too.
PARTS = ("training_forward", "input_gradient", "weight_gradient", "optimizer")
WHOLE = ("forward", "backward", "step", "training_step")  # the last with a loss at its end, as the training loop takes it
OF_A_LAYER = (*WHOLE, *PARTS, "beside")  # in turns with one of PyTorch's own operations
OF_A_MODEL = ("model", "model_step")  # the whole of a network of the user's: a forward pass, and a training step
OF_A_NETWORK = (*OF_A_MODEL, "pruned")  # and of one of the suite's own
TRAINED = ("train", "threshold")  # of networks on data: their regimes and zeros are their own
OPS = (*OF_A_LAYER, *OF_A_NETWORK, "update", *TRAINED)
DEFAULT_OPS = ("forward", "step", "training_step", "pruned", "train")
DEFAULT_OPS_OF_A_MODEL = ("forward", "step", *OF_A_MODEL)
EXTENTS = ("default", "full")
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
COLD_REPLAY = "graph-cold"
REPLAYED = ("graph", COLD_REPLAY)
BUSY = "busy"
REGIMES = ("warm", "cold", BUSY, *REPLAYED)  # see bench.engine.rounds
# TensorFloat-32 is float32 as it is stored, whose products a GPU computes from 10 bits of each factor's fraction.
STORED = {"tf32": "float32"}
DTYPES = ("float32", "float64", "bfloat16", "float16", *STORED)
# A ViT-S feed-forward layer, and one sample through a transformer's.
SHAPES = ("384x1536b128", "512x2048b1")

# Dense by kernels of our own: a layer that keeps every weight, measured beside. What zeros alone gain is told over it.
UNPRUNED, UNPRUNED_LAYER = "unpruned", "block16"

# The layer of which the answer tells from which sparsity on it pays: the first of these that runs on the device. The others are
# what it is held against: where most networks are pruned to, and at the ends of where they may pay.
BEST_LAYERS = ("tiled", "csr")
SPARSITIES_OF_OTHERS = (0.8, 0.9, 0.99)
USUAL_SPARSITY = 0.9  # where one is enough: for what does not depend on it, and for the narrow dense model

# Shares of zero inputs at which a layer that skips them is told of: none, as after a ReLU, and as after a threshold.
ZEROS = (0.0, 0.5, 0.9)
# Of trained networks: shares of the hidden activations that a threshold sets to 0, sparsities of the weights, and data.
THRESHOLD_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
THRESHOLD_SPARSITIES = (0.0, 0.8)
THRESHOLD_DATA = ("digits", "mnist5k")

# The seed's experiment. Its hidden layers are 256 and 256 wide; its sparsity is 0.8.
HIDDEN = (256, 256)
OF_A_SPARSITY = ("sparse", "narrow")  # models; those of every weight have none
TRAINING_SPARSITIES, FULL_TRAINING_SPARSITIES = (0.8,), (0.8, 0.9, 0.95, 0.98)
DISTRIBUTION = "uniform"  # of the sparsity over the layers
PROTOCOLS = ("seed", "tuned")
SEEDS = 8  # the fewest of which an interval at 95 % leaves out one that is unlike the others
SEED_LEARNING_RATE = 1e-3
# Half-decades: where a search begins, and how far it goes on while what it chose lies at the end of what it tried.
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
RATES_IN_REACH = (1e-5, 3e-5, 1e-4, 3e-4, *LEARNING_RATES, 1e-1, 3e-1, 1.0)
FEATURES = {"random": 100, "teacher": 100, "sparse_teacher": 100, "digits": 64, "mnist5k": 784}
# Real data, on which each arm has the learning rate that suits it. The seed's own has no accuracy to lose: whole training steps
# at its shape tell what a training on it would.
DEFAULT_PROTOCOLS = {"digits": "tuned"}
# Even numbers of epochs: each is a pair, and each arm goes first as often as the other.
EPOCHS_AND_BATCH = {
    "random": (10, 4096),
    "teacher": (6, 256),
    "sparse_teacher": (6, 256),
    "digits": (10, 128),
    "mnist5k": (10, 128),
}
# Networks that are trained dense and pruned: the data set of each, and its sizes, or what goes in and out.
NETWORKS = {
    "digits-mlp": ("digits", "64x256x256x10"),
    "digits-conv": ("digits", "64x10"),
    "mnist5k-mlp": ("mnist5k", "784x256x256x10"),
}
PRUNED_EPOCHS, PRUNED_BATCHES = 10, (1, 64)
PRUNED_SPARSITIES, DEFAULT_PRUNED_SPARSITIES = (0.5, 0.8, 0.9, 0.95), (0.8, 0.9)
OWN_EPOCHS_AND_BATCH = (10, 128)  # of users' own data
UPDATE_INTERVAL = 10  # steps; RigL's 100, for trainings a tenth as long as the usual ones
SEARCH_SEEDS = (1000, 1001)  # none of the seeds that are reported

# Whole training steps, their parts and updates are looked at where the seed's experiment is, unless asked for elsewhere.
PART_SPARSITIES = UPDATE_SPARSITIES = (0.8,)
PART_SHAPES = UPDATE_SHAPES = TRAINING_SHAPES = ("100x256x256x10b4096",)
# Shapes and sparsities of any operation, and of those that have their own; parts are held against a step that is there too.
Grid = list[tuple[tuple[str, ...], tuple[float, ...]]]
GRID: Grid = [(SHAPES, SPARSITIES)]
OF_PARTS: Grid = [(PART_SHAPES, PART_SPARSITIES)]
OF_STEPS: dict[str, Grid] = dict.fromkeys(PARTS, OF_PARTS)
GRIDS: dict[str, Grid] = {
    "step": [*GRID, *OF_PARTS],
    "training_step": [(TRAINING_SHAPES, SPARSITIES)],
    "beside": [(SHAPES[:1], PART_SPARSITIES)],
    **OF_STEPS,
}
DEFAULT_GRIDS: dict[str, Grid] = {**GRIDS, "step": [(SHAPES[:1], SPARSITIES)]}
# A GPU's shapes: layers of a large language model for one and eight samples and at a training's batch, and a ViT's. By default
# layers but the best have the usual sparsity alone, and an MLP is float32: a process takes some seconds to be ready there, and
# 96 cases are what 170 seconds decide.
GPU_SPARSITIES = (0.5, 0.8, 0.9, 0.95)
VIT_SHAPES, LARGE_SHAPES = ("768x3072b2048",), ("4096x4096b4096",)
PREFILL_SHAPES = ("4096x14336b256", "4096x14336b4096")  # between which batches 2:4 may begin to pay, and where it should
FEW_SAMPLES = tuple(f"4096x{outputs}b{batch}" for outputs in (4096, 14336) for batch in (1, 8))
GPU_GRID: Grid = [(FEW_SAMPLES, GPU_SPARSITIES), (VIT_SHAPES, GPU_SPARSITIES), (LARGE_SHAPES, (0.8, 0.95))]
GPU_GRIDS: dict[str, Grid] = {
    "forward": [*GPU_GRID, (PREFILL_SHAPES, (0.5,))],
    "backward": [(VIT_SHAPES, (0.8,))],
    "step": [(VIT_SHAPES, GPU_SPARSITIES), (LARGE_SHAPES, (0.8, 0.95)), (("4096x14336b4096",), (0.9,)), *OF_PARTS],
    "training_step": [(TRAINING_SHAPES, GPU_SPARSITIES)],
    "beside": [(VIT_SHAPES, PART_SPARSITIES)],
    **OF_STEPS,
}
GPU_DEFAULT_GRIDS: dict[str, Grid] = {
    **GPU_GRIDS,
    "forward": [(FEW_SAMPLES[:2], GPU_SPARSITIES), (VIT_SHAPES, GPU_SPARSITIES)],
    "step": [(VIT_SHAPES, GPU_SPARSITIES)],
}
# So few samples pass through a large layer that its weights are all that is moved, and a model's other layers push them out of
# the caches before they come to be needed again.
COLD_BATCH = 32


def stored(dtype: str) -> str:
    """Return the name of the type in which torch stores numbers of a precision."""
    return STORED.get(dtype, dtype)


def is_gpu(device: str) -> bool:
    """Tell whether a device, as "cuda" or "cuda:1", is a GPU."""
    return device.partition(":")[0] == "cuda"


def usual(sparsities: tuple[float, ...]) -> tuple[float, ...]:
    """Return the one of a grid's sparsities at which most networks are told of."""
    return (USUAL_SPARSITY,) if USUAL_SPARSITY in sparsities else (sparsities[len(sparsities) // 2],)


def of_others(sparsities: tuple[float, ...], *, on_gpu: bool) -> tuple[float, ...]:
    """Return the sparsities of layers that the best one is held against by default: on a GPU one of the grid's."""
    usually = usual(sparsities)
    return usually if on_gpu else tuple(level for level in sparsities if level in (*SPARSITIES_OF_OTHERS, *usually))


def epochs_and_batch(data: str) -> tuple[int, int]:
    """Return for how many epochs of which batch a data set is trained on."""
    return EPOCHS_AND_BATCH.get(data, OWN_EPOCHS_AND_BATCH)


def grid_of(op: str, *, on_gpu: bool, is_full: bool) -> Grid:
    """Return the shapes of an operation, each with its sparsities."""
    if on_gpu:
        return (GPU_GRIDS if is_full else GPU_DEFAULT_GRIDS).get(op, GPU_GRID)
    return (GRIDS if is_full else DEFAULT_GRIDS).get(op, GRID)
