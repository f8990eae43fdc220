"""The computer at hand: its facts, what it can do at best, and the name by which its runs are kept apart."""
