"""`splitplace secure rotate authority`: replace the certificate authority without losing anybody.

First everybody trusts both: files of credentials get the new authority beside the old one, and the broker
shows a certificate that either confirms. Nodes learn the new authority over the connection that the old one
confirms. `--finish` ends that: then only the new authority counts.
"""

from dataclasses import replace

from splitplace.commands.secure.authority import Authority, AuthorityError
from splitplace.commands.secure.facts import Facts
from splitplace.messages.topics import ENROLLER, SERVICES
from splitplace.storage.credentials import Credentials
from splitplace.storage.secured import SecuredFolder

AUTHORITY = "authority"


def begin(folder: SecuredFolder) -> None:
    """Make a new authority that is trusted beside the old one. Raises AuthorityError, OSError."""
    facts = Facts.load(folder.facts)
    old = Authority.load(folder.authority)
    new = old.successor()
    _trust(folder, new.pem, old.pem)
    new.save(folder.authority)  # before the broker's certificate: `rotate broker` can repeat that
    new.sign_broker(facts.hosts, folder.broker)
    print(
        "there is a new authority, and the old one is trusted beside it; splitplace broker and splitplace up "
        "take it now, and nodes do while they are online"
    )
    _say_who_needs_a_copy(folder)
    print("when all have been online:  splitplace secure rotate authority --finish")


def finish(folder: SecuredFolder) -> None:
    """Trust the new authority only. Raises AuthorityError, OSError."""
    authority = Authority.load(folder.authority)
    if not authority.is_taking_over:
        raise AuthorityError(
            "the authority is not being replaced: begin with splitplace secure rotate authority"
        )
    alone = authority.finished()
    _trust(folder, alone.pem)
    alone.sign_broker(Facts.load(folder.facts).hosts, folder.broker)
    alone.save(folder.authority)
    print("only the new authority is trusted now; a node that has missed it needs a new token:")
    print("splitplace secure rotate NODE")
    _say_who_needs_a_copy(folder)


def _trust(folder: SecuredFolder, *authorities: str) -> None:
    """Write the authorities into all files of credentials, that of the enroller last: it tells the nodes."""
    bundle = "\n".join(each.strip() for each in authorities)
    for name in sorted(folder.users.names(), key=lambda name: name == ENROLLER):
        file = folder.users.file(name)
        replace(Credentials.load(file), authority=bundle).save(file)


def _say_who_needs_a_copy(folder: SecuredFolder) -> None:
    others = [name for name in folder.users.names() if name not in {*SERVICES, ENROLLER}]
    if others:
        files = ", ".join(str(folder.users.file(name)) for name in others)
        print(f"copy these again to where they are used: {files}")
