"""What runs in the environments of ``make compat`` is not for this one."""

collect_ignore_glob = ["projects/*"]
