"""Reads requests that carry a graph: in place, or in helper processes that can be killed."""
