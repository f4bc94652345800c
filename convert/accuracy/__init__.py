"""Accuracy of any form of a network over a whole data set."""
