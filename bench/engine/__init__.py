"""How works are timed: rounds, pairs, fresh processes, the journal; and the search for the fastest reference."""
