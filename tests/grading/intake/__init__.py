"""Read submissions: archives, layouts of learning platforms, notebook cells."""
