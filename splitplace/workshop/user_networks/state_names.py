"""Recognise by their names which inputs of a network are states: outputs of its last call. Pure."""

import re
from collections.abc import Sequence

_DIRECTIONS = {"in", "out", "input", "output", "next", "new", "prev", "past", "present", "old", "cur", "last"}
"""Words in the names of states that say which way they go."""
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def states_by_name(inputs: Sequence[str], outputs: Sequence[str], said: Sequence[str] = ()) -> set[str]:
    """Return the inputs that may be states, by what the user says, or by the names of inputs and outputs."""
    if said:
        return {pair.partition("=")[0] for pair in said}
    return {name for name in inputs if any(is_next(name, output) for output in outputs)}


def is_next(source: str, result: str) -> bool:
    """Whether an output has the name of a state that an input has, too."""
    read, made = words(source), words(result)
    if read and made[: len(read)] == read and made[len(read) :] in ([], ["n"]):
        return True
    stem, low = source.lower().rstrip("0").rstrip("_"), result.lower()
    return bool(stem) and low in {f"{stem}n", f"{stem}_n"}


def words(name: str) -> list[str]:
    """Return the words of a name in lower case, without those that say which way a state goes."""
    found = [word.lower() for word in _WORDS.findall(name)]
    return [word for word in found if word not in _DIRECTIONS]
