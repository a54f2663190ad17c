"""The stores: implementations of the journal port."""
