"""Settings of the result aggregator."""

from splitplace.bus.settings import Settings


class ResultAggregatorSettings(Settings):
    """Settings of the result aggregator: those of every part."""
