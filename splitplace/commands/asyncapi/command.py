"""`splitplace asyncapi`."""

from typing import Annotated

import typer

from splitplace.commands.asyncapi.document import to_json
from splitplace.commands.asyncapi.topics_page import markdown as page


def command(
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/topics.md instead.")] = False,
) -> None:
    """Print the AsyncAPI document of all topics."""
    print(page() if markdown else to_json(), end="")
