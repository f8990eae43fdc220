"""A model of one's own in, which linear layers and convolutions to make sparse out: each timed in it, chosen, timed anew."""
