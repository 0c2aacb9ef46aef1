"""`python -m splitplace.services.result_aggregator`, the same as `splitplace result-aggregator`."""

from splitplace.bus.process import process
from splitplace.messages.topics import RESULT_AGGREGATOR
from splitplace.services.result_aggregator.service import ResultAggregator, ResultAggregatorSettings

main = process(RESULT_AGGREGATOR, ResultAggregatorSettings, lambda settings: ResultAggregator(settings).run())

if __name__ == "__main__":
    main()
