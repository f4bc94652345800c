"""Holds a file against the float network, and what it must be."""
