"""The service's API: servicers as trio functions, and the transports that serve them."""
