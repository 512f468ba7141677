"""What the protocol costs on this host: measured, kept, summed up. No cost is ever invented."""
