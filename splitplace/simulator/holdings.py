"""The fragments that a simulated host has in memory, kept as a node keeps them.

Only where a scenario asks for it (`Scenario.loading`); else every host has every fragment from the beginning.
To load one, its files cross the host's link, unless they are there, and stay on the disk; `load_ms` says what
it takes then. It does not slow computing, and what is fetched ahead is not put off when a task comes.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from splitplace.messages.application import Fragment
from splitplace.policies.cost import FETCH_MS
from splitplace.policies.memory import described_bytes
from splitplace.simulator.events import Event, EventQueue
from splitplace.simulator.network import Link, Network, Transfer

MEASURED_ON = 100.0
"""Score of the machine on which `cost.FETCH_MS` was measured, in GFLOP/s: a PC with a free core."""


def load_ms(score: float) -> float:
    """Return what a host of this score takes to load a fragment whose files are there."""
    return FETCH_MS * MEASURED_ON / score


class Holdings:
    """What one host has loaded: what tasks need at once, what may be needed while nothing is computed."""

    def __init__(
        self,
        budget_bytes: float,
        load_ms: float,
        events: EventQueue,
        network: Network,
        links: tuple[Link, ...],
        *,
        in_use: Callable[[], set[str]],
        is_idle: Callable[[], bool],
        on_load: Callable[[], None],
    ) -> None:
        """A host that has loaded nothing.

        Args:
            budget_bytes: memory for fragments.
            load_ms: time to load a fragment whose files are there.
            events: the clock.
            network: brings files.
            links: what they cross.
            in_use: returns hashes of the fragments of stages that stand here; they stay.
            is_idle: whether nothing is computed here.
            on_load: called when a fragment is loaded.
        """
        self.changes = 0
        """How often `loaded` has changed."""
        self.load_ms = load_ms
        self._budget_bytes = budget_bytes
        self._events = events
        self._network = network
        self._links = links
        self._in_use = in_use
        self._is_idle = is_idle
        self._on_load = on_load
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """Memory of what is loaded or being loaded, least recently used first."""
        self._loading: dict[str, Transfer | Event | None] = {}
        self._stored: dict[str, None] = {}
        self._needed: dict[str, Fragment] = {}
        """Wanted by tasks, and without room yet."""
        self._ahead: dict[str, Fragment] = {}
        self._spare: dict[str, None] = {}
        """Makes room for what is loaded ahead."""

    @property
    def loaded(self) -> tuple[str, ...]:
        """Hashes of the fragments that can run."""
        return tuple(sha256 for sha256 in self._sizes if sha256 not in self._loading)

    @property
    def stored(self) -> tuple[str, ...]:
        """Hashes of the fragments that have their files here and are not loaded."""
        held = set(self.loaded)
        return tuple(sha256 for sha256 in self._stored if sha256 not in held)

    def use(self, fragment: Fragment) -> bool:
        """Whether a fragment can run; else it is loaded as soon as there is room."""
        sha256 = fragment.sha256
        if sha256 in self._sizes:
            self._sizes.move_to_end(sha256)
            self._spare.pop(sha256, None)
            return sha256 not in self._loading
        self._ahead.pop(sha256, None)
        self._needed[sha256] = fragment
        self.go_on()
        return False

    def load_when_idle(self, fragments: Iterable[Fragment], gives_way: Iterable[str] = ()) -> None:
        """Load fragments ahead, one by one, into free memory and into that of what gives way."""
        self._spare = dict.fromkeys(gives_way)
        self._ahead = {key: each for key, each in self._ahead.items() if key not in self._spare}
        for fragment in fragments:
            if fragment.sha256 not in self._sizes:
                self._ahead[fragment.sha256] = fragment
        self.go_on()

    def go_on(self) -> None:
        """Load what there is room for now."""
        for sha256, fragment in list(self._needed.items()):
            in_use = self._in_use()
            if sha256 not in in_use:
                del self._needed[sha256]  # its task is gone
            elif self._make_room(fragment, [each for each in self._sizes if each not in in_use]):
                del self._needed[sha256]
                self._begin(fragment)
        while self._ahead and not self._loading and not self._needed and self._is_idle():
            fragment = self._ahead.pop(next(iter(self._ahead)))
            in_use = self._in_use()
            spare = [each for each in self._spare if each in self._sizes and each not in in_use]
            if fragment.sha256 not in self._sizes and self._make_room(fragment, spare):
                self._begin(fragment)

    def lose(self) -> None:
        """Lose all but the files on the disk: the host has died."""
        for step in self._loading.values():
            if isinstance(step, Transfer):
                self._network.stop(step)
            elif step is not None:
                step.cancel()
        for held in (self._sizes, self._loading, self._needed, self._ahead, self._spare):
            held.clear()
        self.changes += 1

    def _make_room(self, fragment: Fragment, candidates: Iterable[str]) -> bool:
        """Whether there is room for a fragment, if need be in place of candidates, in this order."""
        needed = described_bytes(fragment)
        free = self._budget_bytes - sum(self._sizes.values())
        evicted = []
        for sha256 in candidates:
            if free >= needed:
                break
            if sha256 not in self._loading:
                evicted.append(sha256)
                free += self._sizes[sha256]
        if free < needed:
            return False
        for sha256 in evicted:
            del self._sizes[sha256]
            self._spare.pop(sha256, None)
            self.changes += 1
        return True

    def _begin(self, fragment: Fragment) -> None:
        sha256 = fragment.sha256
        self._sizes[sha256] = described_bytes(fragment)
        self._loading[sha256] = None

        def fetched() -> None:
            self._stored[sha256] = None
            self._loading[sha256] = self._events.after(self.load_ms, loaded)

        def loaded() -> None:
            del self._loading[sha256]
            self.changes += 1
            self._on_load()
            self.go_on()

        if sha256 in self._stored or not fragment.file_bytes:
            fetched()
        else:
            self._loading[sha256] = self._network.send(float(fragment.file_bytes), self._links, fetched)
