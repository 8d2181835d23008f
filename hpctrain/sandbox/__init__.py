"""Where code that nobody has read is compiled and run: bubblewrap, seccomp, limits of resources."""
