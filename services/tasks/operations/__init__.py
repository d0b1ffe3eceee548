"""The rules of the tasks context. Each runs inside one transaction and touches nothing else."""
