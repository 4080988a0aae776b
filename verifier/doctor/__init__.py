"""What `verifier doctor` looks at: what is installed, what is configured, what loads, and what a run here would be."""
