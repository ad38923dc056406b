"""How our tables grow from one release to the next, beside Optuna's."""
