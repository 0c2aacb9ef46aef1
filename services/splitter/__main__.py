"""`python -m splitplace.services.splitter`, the same as `splitplace splitter`."""

import sys
from collections.abc import Sequence

from splitplace.bus.service import run_until_signal
from splitplace.services.splitter.service import serve
from splitplace.services.splitter.settings import SplitterSettings
from splitplace.storage.model_store import StoreError


def main(argv: Sequence[str] | None = None) -> None:
    """Run the splitter until it is told to stop. Exits with a sentence where the model store is unusable."""
    arguments = sys.argv[1:] if argv is None else argv
    settings = SplitterSettings.from_arguments(arguments, "splitplace splitter")
    try:
        run_until_signal(serve(settings), settings)
    except StoreError as error:
        sys.exit(f"splitplace splitter: model store {error} (choose another with --store)")


if __name__ == "__main__":
    main()
