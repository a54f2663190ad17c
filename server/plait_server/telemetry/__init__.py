"""Observes the server through the observer port."""
