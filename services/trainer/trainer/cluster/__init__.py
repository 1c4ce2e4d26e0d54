"""Runs as Jobs of a Kubernetes cluster, which is the record of their execution. Fulfils `backends.Backend`.

    cluster_jobs    the backend: each method one action on a run
    keeper          looks at one run: what its Job did goes to status.json, what is to be done goes to the API
    finder          Jobs that are there and that nobody follows: after a restart, from another replica, applied by hand
    mirror          Jobs and pods as the API server last told them
    api             the calls themselves
    rerendering     the Job that is created for a run
    live, steps, attempts, endings, waiting, manifests, refusals        pure: what objects of the API mean

Only `api` imports the client of Kubernetes.
"""
