"""One file a command; each defines a click command object named `command`."""
