"""What Darkroom's services exchange, kept in one bucket of any S3 store.

`store` speaks S3, `sessions` and `checkpoints` give the bucket its meaning, `embedded` runs a real server for one
machine. Services and the CLI call all of it; no gRPC and no tensors in here.
"""
