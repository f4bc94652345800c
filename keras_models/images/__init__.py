"""Pictures: decoded, listed, as data sets, and the names of their classes."""
