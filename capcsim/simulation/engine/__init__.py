"""The bare engine: graphs of work and messages on cores and connections, in one kernel that runs between milestones.

`engine.Engine` is the way in. What the kernel works on are arrays (`state`), and all its functions are plain Python
that `kernel` can also compile; both give the same times to the last bit.
"""
