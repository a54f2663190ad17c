"""The adapters: implementations of the ports. Foreign errors are translated here, and nowhere else."""
