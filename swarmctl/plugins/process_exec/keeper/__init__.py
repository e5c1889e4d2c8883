"""The keeper: the small process that is parent of all tasks, so that the daemon may come and go.

One keeper runs for one state directory. It is started on demand from a copy of this package, by
``python3 -I -S keeper-<hash>.pyz <directory>``, and lives in a session of its own. Laws:

- **Standard library only**, and little of it: start-up is part of a task's start. This package
  imports nothing of swarmctl but itself, so that it runs from its own archive.
- **One thread, no blocking wait**: everything hangs on one selector. Only fsync of one small
  record, and the moment a child needs to say that exec worked, touch anything slow.
- **What a task needs later lies on disk before the task runs**: a record names the process by pid,
  start time and boot id before exec, and tells how it ended before the pid is reaped.
- **A keeper that is killed loses no output and no task.** Tasks write into named pipes that they
  hold open in both directions, so nobody gets SIGPIPE; the next keeper reads on where this one
  stopped. Only exit codes of processes that end between two keepers are unknown.
- **Secrets stay in memory or on tmpfs**: arguments, environment and secret files come over the
  socket; neither records nor logs hold them.

Files below ``<state dir>/process``: ``keeper.lock`` (held while a keeper lives), ``keeper.sock``,
``keeper.log``, ``private/`` (tmpfs with secrets and configs) and for each task a directory
``<task id>/`` with ``record``, ``stdout`` and ``stderr`` (named pipes), ``output.*.log`` and
``work/``.
"""
