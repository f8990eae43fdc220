"""What pytest calls: options, measuring, saving and comparing."""
