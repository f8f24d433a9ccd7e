"""The command line of apparate-jax: ``apparate inject | train-ramps | serve | bench | inspect``."""
