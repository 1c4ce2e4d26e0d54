"""What a training run is, and the one renderer of the Kubernetes Job that carries it out.

`recipe` and `run_spec` say what is trained, `execution` how and where. `render` turns the two into objects of Kubernetes,
`manifest` reads them back. The trainer's service, `darkroom render` and the examples all go through here. Pure: no client
of anything, no files, no clock.
"""
