"""What a report draws beyond what a table tells: learning curves, rooflines, and which row each point is of."""
