"""A chain of layers in one call: its output, or a whole training step, with what an optimizer makes of the gradients."""
