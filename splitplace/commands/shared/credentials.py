"""User name and password on their way to child processes."""

import os

from splitplace.bus.settings import Settings


def hand_on_credentials(settings: Settings) -> None:
    """Give user name and password to child processes as variables: other users can read flags.

    Those of a file stay there: each child reads its own.
    """
    if settings.credentials is not None:
        return
    if settings.username is not None:
        os.environ["SPLITPLACE_USERNAME"] = settings.username
    if settings.password is not None:
        os.environ["SPLITPLACE_PASSWORD"] = settings.password.get_secret_value()
