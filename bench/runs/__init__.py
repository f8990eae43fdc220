"""Saved runs: the row of a case, files written whole, reading files of every schema, and where runs lie."""
