"""Learning: chips and targets to weights, in a run folder. Lightning's loop."""
