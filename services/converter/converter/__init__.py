"""Converts diffusion checkpoints between a Diffusers folder and a single .safetensors or .ckpt file.

Reading order: `sources` opens any layout, `architecture` says what it is, `canonical` and `sd15_keys` name its tensors,
`plan` decides what is written, `transfer` copies and proves, `jobs` runs many, `server` speaks gRPC.
"""
