"""`python -m splitplace.services.splitter`, the same as `splitplace splitter`."""

from splitplace.bus.process import process
from splitplace.messages.topics import SPLITTER
from splitplace.services.splitter.service import Splitter
from splitplace.services.splitter.settings import SplitterSettings

main = process(SPLITTER, SplitterSettings, lambda settings: Splitter(settings).run())

if __name__ == "__main__":
    main()
