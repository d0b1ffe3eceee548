"""What the tasks context is about; plain values with no I/O."""
