"""What every process needs to run: settings, database, clock, server. No domain."""
