"""Pack measured fragments into an application of the model store."""
