"""How the shipped applications, their samples and the reference network are made."""
