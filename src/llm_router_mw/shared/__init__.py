"""One router for several web processes: it lives in a host process of its own."""
