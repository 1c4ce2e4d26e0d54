"""How a Darkroom service runs: configuration, gRPC server and client, errors, auth, metrics, logs, health.

Every service and the command line build on it; it knows no tensors and no storage.
Start reading at `server.py`.
"""
