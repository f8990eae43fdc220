"""A model of one's own in, which of its linear layers to make sparse out: timed where they stand, chosen, and timed anew."""
