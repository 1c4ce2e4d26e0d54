"""The gateway: the A1111 API and gRPC in front of one or several engines or A1111 servers."""
