"""What goes wrong on purpose; a package, so that its modules may be called as those of the other tests are."""
