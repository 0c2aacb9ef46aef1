"""Cut networks into fragments, and measure what each fragment costs."""
