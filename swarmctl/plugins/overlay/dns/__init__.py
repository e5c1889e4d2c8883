"""The responder: answers what tasks ask of names, from the endpoint table, on every node.

It is a process of its own, one for each state directory, so that names are answered while the
daemon is restarted, upgraded or dead: the daemon writes down what it knows of the networks, and the
responder answers from that until it is told something newer. Laws:

- **What is ours is answered here and never asked elsewhere**, known address or not; everything else
  is passed on to the servers that the host, or the task's ``--dns``, names, and passed back as it
  came. Nothing is cached, so nothing goes stale and nothing can be poisoned.
- **Who asks decides what there is.** A task sees the names of its own networks. Inside its
  namespace it is known by the socket; at a bridge's gateway by its address.
- **Whatever bytes arrive, the answer is a message or silence**, and every queue has an end: what
  is too much is dropped and counted.
- **A responder of another version takes over the sockets**, so that no question is lost.
- The daemon imports no dnspython: only the responder's process pays for it.

| module | what it is |
|---|---|
| ``state`` | what the responder is told: networks, and who is in them |
| ``zone`` | the names that follow from it |
| ``answer`` | a question's bytes -> an answer, something to pass on, or nothing |
| ``resolvconf``, ``upstream`` | which servers are asked for the rest, and how |
| ``sockets`` | listening at gateways and inside of namespaces |
| ``serve`` | questions in, answers out, over UDP and TCP |
| ``responder`` | the process; ``control`` its socket, ``handover`` how it follows another |
| ``link``, ``spawn`` | the daemon's side |

Files below ``<state dir>/dns``: ``state.json``, ``control.sock``, ``lock`` (held while a responder
lives) and ``responder.log``.
"""
