"""Several runs in, what they tell of one another out: what changed, what fails the gate, history, machines side by side."""
