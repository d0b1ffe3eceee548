"""The pipeline language: what a task's payload may say, and what it means. Pure: no I/O, no clock, no wire."""
