"""`python -m splitplace.services.placer`, the same as `splitplace placer`."""

from splitplace.bus.process import process
from splitplace.messages.topics import PLACER
from splitplace.services.placer.service import Placer, PlacerSettings

main = process(PLACER, PlacerSettings, lambda settings: Placer(settings).run())

if __name__ == "__main__":
    main()
