"""The geometry of a graph's picture: columns, the order in them, positions and routes, without any characters."""
