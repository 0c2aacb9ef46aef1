"""How far a service that handles messages in order has got. Pure."""

from math import inf


class Progress:
    """The tasks that wait for a service, in the order in which it was told of them."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._last_ms = -inf

    def told(self, key: str) -> None:
        """The service was told of a task: it comes after all others."""
        self._waiting.pop(key, None)
        self._waiting[key] = None

    def handled(self, key: str, now_ms: float) -> list[str]:
        """The service has handled a task. Return those that it passed over: they do not wait any more."""
        if key not in self._waiting:
            return []
        self._last_ms = now_ms
        passed = []
        for waiting in self._waiting:
            if waiting == key:
                break
            passed.append(waiting)
        for over in (*passed, key):
            del self._waiting[over]
        return passed

    def forget(self, key: str) -> None:
        """A task no longer waits for the service."""
        self._waiting.pop(key, None)

    def waits_since_ms(self, key: str) -> float:
        """Return when the service last handled a task, if this one still waits; else minus infinity."""
        return self._last_ms if key in self._waiting else -inf


class Deciders:
    """Splitter and placer: what waits for them, and how far they have got."""

    def __init__(self) -> None:
        self._splitter = Progress()
        self._placer = Progress()

    def announced(self, key: str) -> None:
        """An attempt begins."""
        self._splitter.told(key)
        self._placer.forget(key)

    def decided(self, key: str, now_ms: float) -> list[str]:
        """The splitter has decided, so the placer is next. Return the tasks that were passed over."""
        self._placer.told(key)
        return self._splitter.handled(key, now_ms)

    def placed(self, key: str, now_ms: float) -> list[str]:
        """The placer is done with a task. Return the tasks that were passed over."""
        passed = self._splitter.handled(key, now_ms)  # its decision may come later
        return passed + self._placer.handled(key, now_ms)

    def forget(self, key: str) -> None:
        """A task waits for neither any more."""
        self._splitter.forget(key)
        self._placer.forget(key)

    def waits_since_ms(self, key: str) -> float:
        """Return when others were last handled before a task that waits; minus infinity if it does not."""
        return max(self._splitter.waits_since_ms(key), self._placer.waits_since_ms(key))
