"""What runs inside a worker: llama.cpp, the shared context and the decode loop."""
