"""BYTES: frames, calls, TLS settings, HTTP/1.1, and the connections that carry them."""
