"""Versions of installed packages, for reports."""

import importlib.metadata


def version(package: str) -> str | None:
    """The version of an installed package, or None; ours, too, may run without being installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
