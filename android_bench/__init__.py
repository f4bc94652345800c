"""Measures TFLite files on phones, boards and this host."""
