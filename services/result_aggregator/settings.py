"""Settings of the result aggregator."""

from typing import ClassVar

from splitplace.bus.settings import Settings
from splitplace.messages.topics import RESULT_AGGREGATOR


class ResultAggregatorSettings(Settings):
    """Settings of the result aggregator: those of every part."""

    user: ClassVar[str] = RESULT_AGGREGATOR
