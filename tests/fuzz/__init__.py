"""Mutated inputs of every kind, given to every program that reads them."""
