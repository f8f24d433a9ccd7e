"""The command line: ``apparate inject | train-ramps | serve | top | bench | inspect``."""
