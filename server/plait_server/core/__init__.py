"""The pure core: decides what an execution does, without I/O, clock, randomness or expressions to evaluate."""
