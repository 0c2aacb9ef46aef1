"""Publishes what each sensor got lately."""

from collections.abc import Collection

from splitplace.bus.background import now_ms
from splitplace.bus.figures import Figures
from splitplace.messages.task import Answer
from splitplace.messages.topics import LATEST_OF_APPLICATION, LATEST_OF_SENSOR, METRICS_SENSOR
from splitplace.services.gateway.admission import Admission
from splitplace.services.gateway.sensor_book import SensorBook

EXPIRY_S = 600
"""There are many sensors, and most are silent: repeating their figures each minute would cost more than they
do."""


class SensorFigures:
    """The figures of sensors, and their last answers."""

    def __init__(self, figures: Figures, applications: Collection[str], admission: Admission) -> None:
        """Nobody is known.

        Args:
            figures: of the gateway.
            applications: names of those on offer; changes as they do.
            admission: knows what each sensor holds.
        """
        self._admission = admission
        self._figures = figures
        self._applications = applications
        self._book = SensorBook()

    def own(self) -> None:
        """Clear what an earlier process left."""
        for topic in (METRICS_SENSOR, LATEST_OF_SENSOR, LATEST_OF_APPLICATION):
            self._figures.own(topic, expiry_s=EXPIRY_S)

    def count(self, answer: Answer, *, was_accepted: bool) -> None:
        """Count a terminal answer that is told for the first time."""
        self._book.count(answer, now_ms(), was_accepted=was_accepted)

    def publish(self) -> None:
        """Publish what changed, and clear what was forgotten."""
        sensors, applications = self._book.gone(self._applications, now_ms())
        for key in sensors:
            self._figures.clear(METRICS_SENSOR, sensor=key)
            self._figures.clear(LATEST_OF_SENSOR, sensor=key)
        for name in applications:
            self._figures.clear(LATEST_OF_APPLICATION, application=name)
        self._book.hold(self._admission.holders)
        for metrics, answer in self._book.news(self._admission.quota):
            self._figures.publish(METRICS_SENSOR, metrics)
            if answer is not None:
                self._figures.publish(LATEST_OF_SENSOR, answer)
        for name, answer in self._book.application_news():
            self._figures.publish(LATEST_OF_APPLICATION, answer, application=name)
