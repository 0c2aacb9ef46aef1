"""`python -m splitplace.services.resource_monitor`, the same as `splitplace resource-monitor`."""

from splitplace.bus.command_line import part_command
from splitplace.services.resource_monitor.service import ResourceMonitor
from splitplace.services.resource_monitor.settings import ResourceMonitorSettings
from splitplace.terminal import run

app = part_command(
    ResourceMonitorSettings, lambda settings: ResourceMonitor(settings).run(), "Watch the edge nodes."
)

if __name__ == "__main__":
    run(app, "splitplace resource-monitor")
