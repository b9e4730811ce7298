"""Run untrusted code: sandbox, resource limits, monitored subprocesses."""
