"""The paper's evaluation as one run: parts that are kept, verdicts beside the paper, a report."""
