"""What a report tells in, one file for each kind of figure out."""
