"""What a Jetson is, which image serves there, and what fits. May import what the rest of ``rollout`` imports."""
