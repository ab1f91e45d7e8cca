"""Files of one model by several tools, each made in a process of its own, run in turn on the same machine."""
