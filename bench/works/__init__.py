"""From a case to what is timed: tensors and masks, gates, operations, and the dense reference at its best."""
