"""The verbs, one file each: a signature, which is also its command line, checks, one call, its result."""
