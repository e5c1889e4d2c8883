"""ON EVERY NODE: runs the tasks assigned to it and reports."""
