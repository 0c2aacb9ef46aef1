"""Network architectures in torch, from images in bytes to logits."""
