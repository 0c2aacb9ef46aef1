"""What was found in one input, for each kind of answer. Bounded in size."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag

from splitplace.messages.base import Part, Ratio, one_line
from splitplace.messages.limits import (
    MAX_BUNDLE_TENSORS,
    MAX_FINDING_BYTES,
    MAX_FOUND,
    MAX_FOUND_VALUES,
    MAX_REGIONS,
)
from splitplace.messages.tensors import Dimension, DType

LabelText = Annotated[str, Field(max_length=100), AfterValidator(one_line)]
ClassNumber = Annotated[int, Field(ge=0, le=100_000)]
Pixel = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Value = Annotated[float, Field(ge=-3.5e38, le=3.5e38, allow_inf_nan=False)]

OUTSIDE = 255
"""Value of a map of classes where the network saw nothing of the picture."""


class Scored(Part):
    """A label with its confidence."""

    label: LabelText
    index: ClassNumber
    confidence: Ratio


class FoundLabels(Part):
    """All labels whose probability reaches the threshold, the most probable first."""

    kind: Literal["multi-label"] = "multi-label"
    labels: Annotated[tuple[Scored, ...], Field(max_length=MAX_FOUND)]


class FoundObject(Scored):
    """An object and where it is."""

    box: tuple[Pixel, Pixel, Pixel, Pixel]
    """Left, top, right, bottom in pixels of the upright picture; of the network's input where the task
    brought an array."""


class FoundObjects(Part):
    """Objects, the surest first."""

    kind: Literal["detection"] = "detection"
    objects: Annotated[tuple[FoundObject, ...], Field(max_length=MAX_FOUND)]


class Region(Part):
    """A class in a map, and how much of the map it covers."""

    label: LabelText
    index: ClassNumber
    share: Ratio


class FoundRegions(Part):
    """A map of classes over the whole upright picture, perhaps in fewer pixels than the picture has."""

    model_config = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64")

    kind: Literal["segmentation"] = "segmentation"
    png: Annotated[bytes, Field(max_length=MAX_FINDING_BYTES)]
    """A PNG in grey, each pixel the number of its class; 255 where the network did not see the picture."""
    regions: Annotated[tuple[Region, ...], Field(max_length=MAX_REGIONS)]
    """The classes in it, the largest first."""


class FoundVector(Part):
    """The embedding of an input."""

    kind: Literal["embedding"] = "embedding"
    values: Annotated[tuple[Value, ...], Field(max_length=MAX_FOUND_VALUES)]


class FoundText(Part):
    """The text that was read."""

    kind: Literal["sequence"] = "sequence"
    text: Annotated[str, StringConstraints(max_length=MAX_FOUND), AfterValidator(one_line)]
    confidence: Ratio
    """Mean probability of its symbols; 0 without any."""


class FoundTensor(Part):
    """An output of the network."""

    model_config = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64")

    name: Annotated[str, Field(max_length=256), AfterValidator(one_line)]
    dtype: DType
    shape: Annotated[tuple[Dimension, ...], Field(max_length=8)]
    data: Annotated[bytes, Field(max_length=MAX_FINDING_BYTES)]
    """In C order, little-endian: base64 in JSON, bytes in msgpack."""


class FoundTensors(Part):
    """The outputs of the network by name."""

    kind: Literal["tensors"] = "tensors"
    tensors: Annotated[tuple[FoundTensor, ...], Field(max_length=MAX_BUNDLE_TENSORS)]


Finding: TypeAlias = Annotated[
    FoundLabels | FoundObjects | FoundRegions | FoundVector | FoundText | FoundTensors,
    Field(discriminator="kind"),
]


class Prediction(Scored):
    """The answer for one input of a classification."""

    kind: Literal["classification"] = "classification"
    top: Annotated[tuple[Scored, ...], Field(max_length=MAX_FOUND)] = ()
    """The best classes, where the application asks for several."""


def _kind_of(value: Any) -> str:  # noqa: ANN401 - of a message, or what should become one
    """Return the kind of an answer; early ones say none and are classifications."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return str(kind or "classification")


AnyPrediction: TypeAlias = Annotated[
    Annotated[Prediction, Tag("classification")]
    | Annotated[FoundLabels, Tag("multi-label")]
    | Annotated[FoundObjects, Tag("detection")]
    | Annotated[FoundRegions, Tag("segmentation")]
    | Annotated[FoundVector, Tag("embedding")]
    | Annotated[FoundText, Tag("sequence")]
    | Annotated[FoundTensors, Tag("tensors")],
    Discriminator(_kind_of),
]
"""The answer for one input, of the kind that its application has."""
