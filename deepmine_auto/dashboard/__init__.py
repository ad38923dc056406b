"""The stock optuna-dashboard over a study database: it can be looked at, and nothing else."""
