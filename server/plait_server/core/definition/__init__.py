"""What a graph is, what is wrong with it, and what follows from its shape."""
