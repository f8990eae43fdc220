"""What it takes until a training is as accurate as dense: what each seed tells, what the arms do, and what follows of it."""
