"""The rows of a run in, everything that is told of it out, as plain records that are computed once."""
