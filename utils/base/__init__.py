"""Used by every other room: errors, files, options, tasks, tables, the machine."""
