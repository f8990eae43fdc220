"""What bounds the kernels on a machine, told by kernels that do nothing else."""
