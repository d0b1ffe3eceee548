"""The worker: leases runs from the tasks service, runs their pipelines, reports what it did. It keeps nothing."""
