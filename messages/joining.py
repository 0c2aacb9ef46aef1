"""How a node with a joining token gets a user, and whom it trusts. Only where the broker has users."""

from typing import Annotated

from pydantic import Field

from splitplace.messages.base import Message, Name, Text


class JoinRequest(Message):
    """A newcomer asks for a lasting user. On `join/<node>/request`."""

    node: Name
    password: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$", repr=False)]
    """Drawn by the node: 256 bits. So a lost answer locks nobody out."""


class JoinAnswer(Message):
    """What the enroller says to a newcomer. On `join/<node>/answer`."""

    node: Name
    error: Text = ""
    """Why it may not join; empty if it may, with the password that it sent."""


class TrustedAuthorities(Message):
    """Who may have signed the broker's certificate, now and soon. On `authority`."""

    certificates: Annotated[str, Field(pattern=r"^-----BEGIN CERTIFICATE-----\n", max_length=16_384)]
    """One or several in PEM. Nodes keep them in place of those that they have."""
