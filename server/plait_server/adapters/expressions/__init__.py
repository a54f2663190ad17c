"""Expressions in CEL, evaluated by Google's C++ library behind bounds of our own.

`cel` compiles and evaluates, `template` fills JSON documents, `offload` runs what may take long in a helper
process that can be killed, `inline` runs it in place for simulations.
"""
