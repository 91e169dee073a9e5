from hwnas.runs import *  # noqa: F403
