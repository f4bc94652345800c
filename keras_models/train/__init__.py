"""Float training: pictures and settings -> weights, resumable at any moment."""
