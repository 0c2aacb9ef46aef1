"""`splitplace asyncapi`."""

import json

from cli.asyncapi import document


def command() -> None:
    """Print the AsyncAPI document of all topics."""
    print(json.dumps(document(), indent=2, ensure_ascii=False))
