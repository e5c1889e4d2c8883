"""Other people's schedulers, filters and allocators, each plugin in a child process of its own.

docs/design/plugins.md tells how the parts work together. ``stand_ins`` and ``desk`` are plain code
on the manager's side, ``runner`` is the shell that owns the child, ``child`` is the program in it,
``messages`` is what they say to each other and ``redact`` what they do not.
"""
