"""Model formats, one file each: what the runtime fuses, and how a graph is written, loaded and run."""
