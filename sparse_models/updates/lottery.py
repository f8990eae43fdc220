"""Lottery tickets (Frankle and Carbin 2019, arXiv:1803.03635), rewound (Frankle et al. 2020, arXiv:1912.05671).

Four rounds in the first 80 % of the steps: the net is trained, the same fraction of the weights that are left goes by
magnitude, and the others go back to what they were at 2 % of the steps, with biases, and an optimizer that starts anew. What is
left at the end is trained for the last 20 %. The papers train every round in full, which takes as many trainings as there are
rounds and one more; here all of it is one training, of as many steps as any other arm's.
"""

from sparse_models.updates._rule import Update, constant, in_rounds, register_update
from sparse_models.updates._scores import magnitude, none_grown

LOTTERY = register_update(
    Update(
        "lottery",
        magnitude,
        none_grown,
        constant(0.0),
        sparsity=in_rounds(4, until=0.8),
        rewind_to=0.02,
        conserves=False,
        is_default=False,
    )
)
