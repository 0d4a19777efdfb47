"""The child process that holds one instance, and its end of the pipe."""
