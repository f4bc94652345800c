"""Verification: compares a file with the float network, and checks what it is made of."""
