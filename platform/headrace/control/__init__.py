"""A run as Ray jobs: the local cluster, job submission, the watcher of checkpoints, and the loop that reconciles them with storage."""
