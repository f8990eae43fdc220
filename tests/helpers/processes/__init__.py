"""Other processes: those that tests run, and the one that sees to it that a test ends."""
