"""A network of the user's in, by the name of a function: the module, its linear layers and their shapes, masks from a file."""
