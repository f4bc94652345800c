"""A bundle's README.md: what its file is, in words, and the code that runs it."""
