"""A whole training step of a chain of layers in one call: loss, gradients, and what an optimizer makes of them."""
