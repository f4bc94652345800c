"""Efficient mobile CNNs in Keras, each held to its paper."""
