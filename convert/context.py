"""What the stages of one conversion share."""

from dataclasses import dataclass

from convert.network import LoadedNetwork
from convert.settings import ConversionSettings
from shufflelite.progress import Progress


@dataclass(frozen=True, eq=False)
class Context:
    """One conversion: its settings, its network, and where it reports progress."""

    settings: ConversionSettings
    network: LoadedNetwork
    progress: Progress
