"""Transports, one file each: how files and the runner get to a device, and lines come back."""
