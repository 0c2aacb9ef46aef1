"""What the user says of the answers of a network, over what is recognised in the file."""

from dataclasses import dataclass
from typing import TypeVar

from splitplace.errors import ConfigurationError
from splitplace.messages.answer_kinds import KINDS, AnswerKind, Classification, Kind, MultiLabel
from splitplace.workshop.user_networks.detectors import BOXES, HEADS
from splitplace.workshop.user_networks.heads import HeadWishes

ChoiceT = TypeVar("ChoiceT", bound=str)

CLASSES_IN_AN_ANSWER = 1000


@dataclass(frozen=True)
class KindFlags:
    """Flags about answers, as they are typed."""

    kind: str = ""
    head: str = ""
    boxes: str = ""
    overlap: float = 0.45
    threshold: float | None = None
    blank: int = 0
    top: int = 1

    def chosen(self, task: str, nameless_outputs: int = 1) -> tuple[Kind, str]:
        """Return the kind, and by which rule it was chosen.

        Args:
            task: What the file's notes call the task of the network; empty where they say nothing.
            nameless_outputs: Number of its outputs, if no labels say what they are.

        Raises:
            ConfigurationError: There is no such kind.
        """
        said = _choice("--kind", self.kind, KINDS)
        if said is not None:
            return said, "--kind"
        if task == "detect":
            return "detection", "the notes of Ultralytics"
        if nameless_outputs > 1:
            return "tensors", f"it has {nameless_outputs} outputs, and no --labels"
        return "classification", "nothing says otherwise"

    def head_wishes(self, kind: Kind, labels: tuple[str, ...]) -> HeadWishes | None:
        """Return what is said of answers that are no classes; None for those that are."""
        if kind in {"classification", "multi-label"}:
            return None
        return HeadWishes(
            kind=kind,
            labels=labels,
            head=_choice("--head", self.head, HEADS),
            boxes=_choice("--boxes", self.boxes, BOXES),
            overlap=self.overlap,
            threshold=self.threshold,
            blank=self.blank,
        )

    def declaration(self, kind: Kind, classes: int) -> AnswerKind | None:
        """Return the declaration of answers that are classes; None for the best class alone.

        Raises:
            ConfigurationError: An answer is to name more classes than there are.
        """
        if kind == "classification" and self.top > classes:
            raise ConfigurationError(f"--top {self.top}: the network has {classes} classes")
        if kind == "multi-label":
            return MultiLabel() if self.threshold is None else MultiLabel(threshold=self.threshold)
        return Classification(top=self.top) if kind == "classification" and self.top > 1 else None


def _choice(flag: str, text: str, choices: tuple[ChoiceT, ...]) -> ChoiceT | None:
    found = next((choice for choice in choices if choice == text), None)
    if text and found is None:
        raise ConfigurationError(f"{flag} is one of {', '.join(choices)}")
    return found
