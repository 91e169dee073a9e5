"""Search spaces, one file each: what a strategy chooses from, and the architecture that a choice stands for."""
