"""How workloads are measured: contestants in processes of their own, of which one at a time runs."""
