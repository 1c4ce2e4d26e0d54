"""The program inside a training run: DreamBooth in two stages, started as `python -m dreambooth`.

It reads its whole order from the environment (`config`), works on the bucket alone, and says how it ended by its exit
code (`exits`). The control plane (`trainer`) starts it and reads its records; neither imports the other.
`training` is the table of contents: read it first.
"""
