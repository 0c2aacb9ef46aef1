"""The last picture of each sensor, as often as somebody can look. Pure: each call names its time."""

from splitplace.messages.names import sensor_part

EVERY_S = 2.0
MAX_BYTES = 2_000_000
MAX_SENSORS = 200
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF")
_LEVELS = 3
"""`task/<application>/<client>`: a sensor without a name has no picture."""


class Pictures:
    """Chooses the tasks whose picture is shown: bare files of named sensors."""

    def __init__(self) -> None:
        """No picture was shown."""
        self._shown_s: dict[str, float] = {}

    def take(self, name: str, payload: bytes, now_s: float) -> str | None:
        """Return the sensor if this task's payload is to be shown, in the letters of a key.

        Args:
            name: topic without prefix.
            payload: of a task.
            now_s: seconds.
        """
        levels = name.split("/")
        if len(levels) < _LEVELS or len(payload) > MAX_BYTES or not payload.startswith(_MAGIC):
            return None
        sensor = sensor_part(levels[_LEVELS - 1])
        if now_s - self._shown_s.get(sensor, -EVERY_S) < EVERY_S:
            return None
        if sensor not in self._shown_s and len(self._shown_s) >= MAX_SENSORS:
            return None
        self._shown_s[sensor] = now_s
        return sensor
