"""What moves the masks of layers in place: the smallest weights dropped, others grown, and all that follows rewritten."""
