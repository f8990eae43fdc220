"""What is told of zeros among activations."""
