"""Numbers of things, and the answer for one input, in a few words. Pure."""

from collections import Counter

from splitplace.messages.findings import (
    AnyPrediction,
    FoundLabels,
    FoundObjects,
    FoundRegions,
    FoundTensors,
    FoundText,
    FoundVector,
    Prediction,
)

_MOST_NAMED = 5


def described(prediction: AnyPrediction) -> str:
    """Return an answer as words for people, whatever its kind."""
    text: str
    match prediction:
        case Prediction():
            text = f"{prediction.label}  {prediction.confidence:.0%}"
        case FoundLabels(labels=labels):
            named = [f"{each.label} {each.confidence:.0%}" for each in labels[:_MOST_NAMED]]
            text = _listed(named, len(labels) - len(named), "no label")
        case FoundObjects(objects=objects):
            counts = Counter(each.label for each in objects).most_common(_MOST_NAMED)
            named = [label if count == 1 else f"{count} x {label}" for label, count in counts]
            text = _listed(named, len({each.label for each in objects}) - len(named), "nothing found")
        case FoundRegions(regions=regions):
            named = [f"{each.label} {each.share:.0%}" for each in regions[:_MOST_NAMED]]
            text = _listed(named, len(regions) - len(named), "no class")
        case FoundText():
            text = f"{prediction.text!r}  {prediction.confidence:.0%}" if prediction.text else "no text"
        case FoundVector(values=values):
            beginning = ", ".join(f"{value:.3g}" for value in values[:_MOST_NAMED])
            text = f"{len(values)} values: {beginning}{', ...' if len(values) > _MOST_NAMED else ''}"
        case FoundTensors(tensors=tensors):
            text = ", ".join(f"{each.name} {each.dtype}{list(each.shape)}" for each in tensors)
    return text


def _listed(named: list[str], more: int, nothing: str) -> str:
    return ", ".join(named) + (f" and {more} more" if more > 0 else "") if named else nothing


def counted(number: float, what: str) -> str:
    """Return `1 task`, `2.5 tasks`."""
    shown = str(number) if isinstance(number, int) else f"{number:g}"
    return f"{shown} {what}{'' if number == 1 else 's'}"
