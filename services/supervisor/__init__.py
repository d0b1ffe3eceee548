"""All of Baton on one machine: sets up a home, starts every process, keeps them running, stops them cleanly."""
