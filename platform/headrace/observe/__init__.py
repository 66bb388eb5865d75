"""What a run tells while it is at work: progress, events, Prometheus metrics, and copies for TensorBoard and MLflow.

All of it follows the files that the run writes anyway, from beside the work: nothing here can fail a run or slow a step.
"""
