"""Smaller and faster variants of a trained network: fewer channels, fewer bytes sent, fewer bits."""
