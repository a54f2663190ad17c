"""`plait bench`: what the server does, beside what the machine allows, measured in the same run.

Absolute figures differ by machine and by hour; only the ratios are worth comparing.
"""
