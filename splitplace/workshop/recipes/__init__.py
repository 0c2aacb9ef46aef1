"""How the shipped applications are trained and built."""
