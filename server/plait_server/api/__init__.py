"""The service's face: servicers as trio functions, and the doors that serve them."""
