"""A sensor for an ESP32 with MicroPython: takes a picture, asks, acts on the label, and sleeps.

Copy it to the board as `main.py`. `umqtt.simple` is part of the ESP32 firmware. It uses MQTT 3.1.1 without
TLS; in a secured system put a broker's bridge in between, or pass `ssl=` to the client. A picture is sent as
it is, JPEG or PNG, so nothing is converted here.
"""

import time

from umqtt.simple import MQTTClient

BROKER, PORT = "192.168.1.10", 1883
PREFIX = "splitplace/v1"
APPLICATION = "mnist"
NAME = "esp32"
PATIENCE_MS = 5000
TRIES = 4
PAUSE_MS = 500
SLEEP_MS = 60_000


def between(text, start, end):
    """Return what stands between two marks, else None. Parsed JSON would take more memory."""
    at = text.find(start)
    if at < 0:
        return None
    at += len(start)
    to = text.find(end, at)
    return text[at:to] if to >= 0 else None


class Sensor:
    """One connection to the broker."""

    def __init__(self, client, name=NAME, application=APPLICATION, prefix=PREFIX):
        self.client = client
        self.task = prefix + "/task/" + application + "/" + name + "/"
        self.answers = prefix + "/answer/" + name + "/+"
        self.answer = None
        self.id = ""
        client.set_callback(self.hear)

    def connect(self):
        """Connect, and listen for answers."""
        self.client.connect()
        self.client.subscribe(self.answers, 1)

    def hear(self, topic, payload):
        """Keep the answer to the last task; others are old."""
        if topic.rsplit(b"/", 1)[-1] == self.id.encode():
            self.answer = payload.decode()

    def ask(self, picture, number):
        """Send a picture until it is not refused. Return status and label; None for what is unknown."""
        status = label = None
        pause = PAUSE_MS
        for attempt in range(TRIES):
            self.id = "%d-%d" % (number, attempt)
            self.answer = None
            self.client.publish((self.task + self.id).encode(), picture, False, 1)
            end = time.ticks_add(time.ticks_ms(), PATIENCE_MS)
            while self.answer is None and time.ticks_diff(end, time.ticks_ms()) > 0:
                self.client.check_msg()
                time.sleep_ms(10)
            if self.answer is None:
                return None, None
            status = between(self.answer, '"status":"', '"')
            label = between(self.answer, '"label":"', '"')
            if status != "refused":
                break
            time.sleep_ms(pause)
            pause *= 2
        return status, label


def numbered():
    """Return a number that no earlier start has used: a task id that comes again gets the old answer."""
    try:
        with open("boots") as file:
            boots = int(file.read())
    except (OSError, ValueError):
        boots = 0
    with open("boots", "w") as file:
        file.write(str(boots + 1))
    return boots + 1


def picture():
    """Return the bytes of a picture. Replace this by your camera's."""
    with open("picture.png", "rb") as file:
        return file.read()


def main():
    """Ask once, then sleep: a sleeping ESP32 starts anew when it wakes up."""
    sensor = Sensor(MQTTClient(NAME, BROKER, PORT, keepalive=60))
    try:
        sensor.connect()
        status, label = sensor.ask(picture(), numbered())
        print(status, label)
        sensor.client.disconnect()
    except OSError as error:  # no network or no broker: try again after the sleep
        print("not sent:", error)
    import machine

    machine.deepsleep(SLEEP_MS)


if __name__ == "__main__":
    main()
