"""Rows in, everything that is told out, as plain records that are computed once."""
