"""Training of sd15-tiny and controlnet-canny-tiny on drawn scenes; `train.py` beside it is the command."""
