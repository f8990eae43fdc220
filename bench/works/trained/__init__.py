"""Networks that are trained on data: how dense ones take their steps, what a training costs, thresholds of activations."""
