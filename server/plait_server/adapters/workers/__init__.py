"""Ways to reach workers: attached ones dial in and keep one stream."""
