"""`python -m splitplace.services.resource_monitor`, the same as `splitplace resource-monitor`."""

from splitplace.bus.process import process
from splitplace.messages.topics import RESOURCE_MONITOR
from splitplace.services.resource_monitor.service import ResourceMonitor, ResourceMonitorSettings

main = process(RESOURCE_MONITOR, ResourceMonitorSettings, lambda settings: ResourceMonitor(settings).run())

if __name__ == "__main__":
    main()
