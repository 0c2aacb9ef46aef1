"""`splitplace experiments live`: real processes on this machine, with the simulator beside them."""
