"""An answer of every kind."""

from splitplace.messages.findings import (
    FoundLabels,
    FoundObject,
    FoundObjects,
    FoundRegions,
    FoundTensor,
    FoundTensors,
    FoundText,
    FoundVector,
    Prediction,
    Region,
    Scored,
)

SCORED = Scored(label="cat", index=1, confidence=0.5)
FOUND = (
    Prediction(label="cat", index=1, confidence=0.5, top=(SCORED,)),
    FoundLabels(labels=(SCORED,)),
    FoundObjects(objects=(FoundObject(label="cat", index=1, confidence=0.5, box=(0.0, 1.5, 2.0, 3.0)),)),
    FoundRegions(png=b"\x89PNG\xff", regions=(Region(label="cat", index=1, share=1.0),)),
    FoundVector(values=(0.25, -1.0)),
    FoundText(text="AB 12", confidence=0.75),
    FoundTensors(tensors=(FoundTensor(name="y", dtype="int8", shape=(2,), data=b"\x01\xff"),)),
)
