"""Two-party programs, what runs them (here, over TLS, in processes of their own), and the default steps 1c and 3."""
