"""Mask updates by kernels of our own, where those know the rule and the layers; elsewhere nothing is done."""
