"""What moves the masks of layers on a GPU: the smallest weights dropped, others grown, and all that follows rewritten."""
