"""What zeros among activations are worth."""
