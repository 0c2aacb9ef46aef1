"""Pack fragments into an application of the model store, and measure its variants."""
