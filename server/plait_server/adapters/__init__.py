"""The adapters: what stands behind the ports. Foreign errors are translated here, and nowhere else."""
