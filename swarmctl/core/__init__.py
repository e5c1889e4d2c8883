"""The cluster manager itself; knows executors only by their Protocols, never by plugin."""
