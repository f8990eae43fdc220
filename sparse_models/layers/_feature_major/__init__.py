"""What the layers share whose activations are feature-major, and that keep the structure of their weights both ways."""
