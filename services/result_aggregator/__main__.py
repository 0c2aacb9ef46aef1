"""`python -m splitplace.services.result_aggregator`, the same as `splitplace result-aggregator`."""

from splitplace.bus.command_line import part_command
from splitplace.services.result_aggregator.service import ResultAggregator
from splitplace.services.result_aggregator.settings import ResultAggregatorSettings
from splitplace.terminal import run

app = part_command(
    ResultAggregatorSettings, lambda settings: ResultAggregator(settings).run(), "Merge outputs into results."
)

if __name__ == "__main__":
    run(app, "splitplace result-aggregator")
