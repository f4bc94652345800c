"""Which versions of packages are here, for reports."""

import importlib.metadata


def version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed, as ours may be."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
