"""Faults in a real network of four validators and an observer."""
