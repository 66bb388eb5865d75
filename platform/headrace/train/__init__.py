"""Training under Ray Train, torchrun or a plain spawn: one worker, DeepSpeed's ZeRO, exact resume."""
