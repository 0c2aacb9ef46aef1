"""Which chunks the repository sends next: nodes take turns; what is on its way is not sent again. Pure."""

from collections import OrderedDict
from typing import NamedTuple

from splitplace.messages.cluster import FragmentRequest
from splitplace.messages.limits import CHUNK_BYTES

MAX_DUE = 1024
"""Chunks due at a time (256 MiB); requests beyond it are dropped, and nodes ask again."""
MAX_DUE_OF_NODE = 64
"""Chunks due to one node at a time: two full windows."""
_MAX_REMEMBERED = 4096
"""Chunks sent, and nodes that listen, to remember. What is forgotten may be sent twice."""


class Chunk(NamedTuple):
    """One chunk of a file."""

    file: str
    """SHA-256 of the file."""
    number: int


class DueChunks:
    """The chunks to send. Each node has a queue, and the nodes take turns.

    A chunk that several nodes wait for is sent once, for all of them. One that was sent while a node listened
    is on its way to that node, and sent again only if the node says that it is lost.
    """

    def __init__(self, max_due: int = MAX_DUE, max_due_of_node: int = MAX_DUE_OF_NODE) -> None:
        """Empty queues for at most this many chunks."""
        self._max_due = max_due
        self._max_due_of_node = max_due_of_node
        self._queues: OrderedDict[str, OrderedDict[Chunk, None]] = OrderedDict()
        """By node; the first is the next in turn. None is empty."""
        self._due = 0
        """Length of all queues together."""
        self._sent = 0
        self._sent_as: OrderedDict[Chunk, int] = OrderedDict()
        """Ordinal number of each chunk's last sending."""
        self._listens_since: OrderedDict[tuple[str, str], int] = OrderedDict()
        """By node and file: how many chunks had been sent when it began to listen."""

    def __len__(self) -> int:
        return self._due

    def ask(self, request: FragmentRequest, file_bytes: int) -> None:
        """Add the chunks of a request that the file has and that are neither due nor on their way."""
        file = request.fragment
        listener = (request.node, file)
        if not request.follows:
            self._listens_since.pop(listener, None)
        since = self._listens_since.setdefault(listener, self._sent)
        _trim(self._listens_since)
        end = min(request.first_chunk + request.chunks, -(-file_bytes // CHUNK_BYTES))
        for number in range(request.first_chunk, end):
            chunk = Chunk(file, number)
            if self._sent_as.get(chunk, -1) < since:
                self._add(request.node, chunk)

    def next(self) -> Chunk:
        """Take the next chunk. Raises KeyError if none is due."""
        if not self._queues:
            raise KeyError("no chunk is due")
        turn, queue = next(iter(self._queues.items()))
        chunk = next(iter(queue))
        self._queues.move_to_end(turn)
        for node, other in list(self._queues.items()):
            if chunk in other:
                del other[chunk]
                self._due -= 1
            if not other:
                del self._queues[node]
        self._sent_as.pop(chunk, None)
        self._sent_as[chunk] = self._sent
        self._sent += 1
        _trim(self._sent_as)
        return chunk

    def _add(self, node: str, chunk: Chunk) -> None:
        queue = self._queues.get(node, OrderedDict())
        if chunk not in queue and self._due < self._max_due and len(queue) < self._max_due_of_node:
            queue[chunk] = None
            self._queues[node] = queue
            self._due += 1


def _trim(memory: OrderedDict[Chunk, int] | OrderedDict[tuple[str, str], int]) -> None:
    """Forget the oldest entry beyond the limit."""
    if len(memory) > _MAX_REMEMBERED:
        memory.popitem(last=False)
