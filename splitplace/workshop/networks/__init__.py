"""Network architectures: images in bytes to logits."""
