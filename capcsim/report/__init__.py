"""Tables, figures, page and trace of a finished run. Reads records and nothing else."""
