"""Built-in executor that runs tasks as plain processes under a keeper."""
