"""A run as Ray jobs: the loop that reconciles them with storage, their attempts and their ends, and the run's own local cluster."""
