"""One model per prompt: held-out prompts, the three rules and baselines, costs, calibration."""
