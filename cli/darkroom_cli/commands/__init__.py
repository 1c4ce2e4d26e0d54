"""One module for each group of commands; each speaks to the services through their public protos only."""
