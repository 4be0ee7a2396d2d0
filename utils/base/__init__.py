"""What every other room stands on: errors, files, options, tasks, tables, the machine."""
