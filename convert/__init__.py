"""Turns a network into a proven TFLite file."""
