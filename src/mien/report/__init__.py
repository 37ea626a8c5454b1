"""Pictures and pages for people, from measured numbers."""
