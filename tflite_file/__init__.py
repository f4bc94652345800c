"""Reads and rewrites .tflite files: operators, input and output, metadata, precision."""
