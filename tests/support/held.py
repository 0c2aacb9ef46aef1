"""How much memory an object holds after few and after many tasks, by the sizes of all that it refers to."""

import gc
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

FEW, MANY = 2_500, 20_000
_SLACK_BYTES = 8
"""For each further task: Python's tables grow in leaps. A task's key alone has 70 bytes."""
_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
"""Part of the program, not of what it holds."""


def held_bytes(holder: object) -> int:
    """Return the bytes of everything that an object refers to."""
    seen: dict[int, object] = {}
    found = [holder]
    while found:
        thing = found.pop()
        if id(thing) not in seen and not isinstance(thing, _SHARED):
            seen[id(thing)] = thing
            found += gc.get_referents(thing)
    return sum(sys.getsizeof(thing) for thing in seen.values())


def assert_flat(holder: object, do: Callable[[int], object], *, few: int = FEW, many: int = MANY) -> None:
    """Do something many times, by number. The holder must hold no more than after the first few."""
    for number in range(few):
        do(number)
    after_few = held_bytes(holder)
    for number in range(few, many):
        do(number)
    grown = (held_bytes(holder) - after_few) / (many - few)
    assert grown < _SLACK_BYTES, f"{grown:.0f} bytes more for each further task"
