"""Shipping: a network becomes a model file, which must answer as the network does."""
