"""Tables of networks that were trained on data."""
