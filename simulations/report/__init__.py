"""The consequence report: one page that a decision maker can open, print and check."""
